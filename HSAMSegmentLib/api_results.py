"""Return types of the public API that no other layer defines. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.errors import RequestError

if TYPE_CHECKING:
    import pandas

    from HSAMSegmentLib.evaluation.metrics import Comparison, LabelScore
    from HSAMSegmentLib.labels.label_set import LabelSet
    from HSAMSegmentLib.training.request import ValidationMetrics
    from HSAMSegmentLib.weights.loading import LoadedModel


@dataclass(frozen=True)
class FinetunedModel:
    """A fine-tuned model in memory. Pass it to `segment`, or save it.

    Attributes:
        model: network and manifest.
        metrics: Dice on the validation slices by structure; empty without validation.
        validated_on: "given case", "held-out slices of the same scan" or "nothing".
        steps: number of optimizer steps.
        seconds: training time.
        stopped: "budget", "no more progress", "cancelled" or "loss not a number".
        notes: sentences on what was assumed, resampled, initialized or left out.
        history: all validations, in order.
    """

    model: LoadedModel = field(repr=False)
    metrics: dict[str, float]
    validated_on: str
    steps: int
    seconds: float
    stopped: str
    notes: tuple[str, ...] = ()
    history: tuple[ValidationMetrics, ...] = field(default=(), repr=False)

    @property
    def labels(self) -> LabelSet:
        """Names, colors and codes of the structures that the model segments."""
        return self.model.manifest.labels

    def save(self, path: str | Path, *, title: str = "", overwrite: bool = False) -> Path:
        """Save the model as a self-contained bundle with its manifest.

        Args:
            path: a .safetensors file; its name becomes the ID of the model.
            title: title of the model; unchanged by default.
            overwrite: replace an existing file.

        Raises:
            RequestError: if the name does not end in .safetensors.
            OutputError: if the file exists or cannot be written.
        """
        from HSAMSegmentLib.training.result import safe_id
        from HSAMSegmentLib.weights.loading import save_model

        path = Path(path)
        if path.suffix != ".safetensors":
            raise RequestError(f"A model is saved to a .safetensors file, not to {path.name}.")
        manifest = replace(self.model.manifest, id=safe_id(path), title=title or self.model.manifest.title)
        return save_model(path, self.model.network, manifest, overwrite=overwrite, dtype="float16")


@dataclass(frozen=True)
class Evaluation:
    """Scores of a prediction against a reference.

    Attributes:
        comparison: all scores, with notes on what was resampled or not compared.
    """

    comparison: Comparison

    def __getitem__(self, name: str) -> LabelScore:
        """Scores of a structure by name, ignoring case."""
        for score in self.comparison.scores:
            if score.name.lower() == name.lower():
                return score
        raise KeyError(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was resampled, missing or not compared."""
        return self.comparison.notes

    def mean(self, metric: str = "dice") -> float | None:
        """Mean of "dice", "jaccard", "hd95" or "asd" over the structures that have a value."""
        return self.comparison.mean(metric)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the definitions of the metrics."""
        from HSAMSegmentLib.report.comparison_report import comparison_to_json

        return comparison_to_json(self.comparison)

    def to_dataframe(self) -> pandas.DataFrame:
        """Tabulate the scores, one row per structure.

        Raises:
            RequestError: if pandas is not installed.
        """
        from HSAMSegmentLib.measurement.table import data_frame

        columns = ("name", "state", "dice", "jaccard", "hd95", "asd", "prediction_ml", "reference_ml")
        rows = [{name: getattr(score, name) for name in columns} for score in self.comparison.scores]
        return data_frame(rows, columns).set_index("name")
