"""Request, events and result of a fine-tuning, as plain data. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.labels.layered_segmentation import LayerInput

if TYPE_CHECKING:
    import numpy as np

    from HSAMSegmentLib.weights.loading import LoadedModel

BUNDLE_SUFFIX = ".safetensors"
SCHEDULES = ("constant", "cosine", "hsam", "autosam")
FEW_CASES = 5
"""Up to this number of scans, the recipe for few scans is used."""
SECOND_PLANE_CASES = range(2, FEW_CASES + 1)
"""Numbers of scans with thin slices for which a second network is trained; with a single scan it did not help."""


@dataclass(frozen=True)
class OrganInput:
    """Where to find an organ in a case.

    Attributes:
        organ: name of the label to learn.
        source: its name in the case (two names may map to one organ).
        layer: number of its layer; unused for label files.
        value: its value in the layer; unused for label files.
    """

    organ: str
    source: str
    layer: int = 0
    value: int = 0


@dataclass(frozen=True)
class FinetuneCase:
    """A scan with its labels: either a label file, or layers.

    Attributes:
        scan: the scan.
        organs: what to learn, everything else being background; empty for all labels of a label file.
        label_file: label map or segmentation file; empty if there are layers.
        layers: label arrays; where organs overlap, the smaller one wins.
    """

    scan: VolumeInput
    organs: tuple[OrganInput, ...] = ()
    label_file: str = ""
    layers: tuple[LayerInput, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.label_file) == bool(self.layers):
            raise RequestError(f"The case '{self.scan.name}' needs its labels either as a file or as arrays.")

    @classmethod
    def of_files(cls, image: Path, labels: Path) -> FinetuneCase:
        """A volume file or DICOM folder with a label map or segmentation file."""
        return cls(VolumeInput(path=str(image)), label_file=str(labels))


@dataclass(frozen=True)
class FinetuneRequest:
    """Request to fine-tune a model on labeled scans, from the panel, the command line or Python.

    Attributes:
        output: the bundle to write. In the background it is in the folder of a training run, with copies of arrays,
            training state and history, until it is in the store (see `workflows.finetune.training_run`).
        cases: training scans; may be empty if `finetune` is given cases in memory.
        validation: scans for selecting the best checkpoint; empty to hold out slices of the training scans.
        names: names of label values, for label maps without names.
        title: title of the model; empty to derive it from the labels.
        modality: "CT", "MR" or "" for that of the first scan.
        head: "hsam", "autosam", "cnn", "linear" or "" for that of the starting model or the default.
        encoder: ID of an encoder, or "" for that of the starting model or the default.
        start_from: ID or file of a model whose matching weights are used; "" for the default, "scratch" for none.
        adaptation: "frozen", "lora", "full" or "" for the default of the encoder.
        lora_blocks: put adapters into the encoder's last k blocks; implies "lora".
        lora_rank: rank of the adapters.
        image_size: side of the network's input, or None for the default of the encoder.
        minutes: duration of the whole job; 10 if neither this nor `epochs` is given.
        epochs: passes over the slices instead of minutes.
        seed: random seed.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        batch_size: views per step.
        rate: highest learning rate, or None for the default of the adaptation.
        schedule: learning rate schedule: "constant", "cosine", "hsam" (warm-up and polynomial decay of H-SAM's
            training), "autosam" (AutoSAM's division by ten after each plateau of the loss), or "" for the best
            measured one.
        resume: continue an interrupted run with the same output.
        overwrite: replace existing files.
        report: JSON file to write, or None.
        plot: PNG file to write, or None.
        save_seconds: interval between saves of the state that `resume` continues from.
        cache_bytes: upper bound on the feature cache of a frozen encoder.
        cache_folder: folder of the feature cache; None for the system's temporary folder.
        stream_folder: keep scans and slices in files in this folder instead of in memory, for cohorts that do not fit;
            None for memory.
        labels: labels to learn, with names, colors and codes and values 1 to K; None for the labels of the cases.
        store_folder: the store that the model is added to in the background; empty for the user's own.
        finish: in the background, end the training and make a model of the best weights of the training run.
    """

    kind: ClassVar[str] = "finetune"

    output: Path
    cases: tuple[FinetuneCase, ...] = ()
    validation: tuple[FinetuneCase, ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    title: str = ""
    modality: str = ""
    head: str = ""
    encoder: str = ""
    start_from: str = ""
    adaptation: str = ""
    lora_blocks: int | None = None
    lora_rank: int = 4
    image_size: int | None = None
    minutes: float | None = None
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"
    batch_size: int = 4
    rate: float | None = None
    schedule: str = ""
    resume: bool = False
    overwrite: bool = False
    report: Path | None = None
    plot: Path | None = None
    save_seconds: float = 20.0
    cache_bytes: int = 4 << 30
    cache_folder: Path | None = None
    stream_folder: Path | None = None
    labels: LabelSet | None = None
    store_folder: str = ""
    finish: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the bundle; in the background, that of the training run."""
        return self.output.parent

    @property
    def model_id(self) -> str:
        """ID of the model in the store, if it is still free."""
        return self.output.name.removesuffix(BUNDLE_SUFFIX)

    def in_folder(self, folder: Path) -> FinetuneRequest:
        """The same request for a moved folder."""
        return replace(self, output=folder / self.output.name)


@dataclass(frozen=True)
class ValidationMetrics:
    """Metrics of one validation.

    Attributes:
        step: optimizer steps so far.
        epoch: passes over the slices so far.
        loss: running mean of the training loss; NaN before the first step.
        dice: Dice on the validation slices by label name; empty without validation slices.
        kept: whether the weights of this step were kept: the best so far, or hardly worse and later (`Validator`).
        eta_seconds: estimated remaining time; None while unknown.
    """

    step: int
    epoch: float
    loss: float
    dice: dict[str, float] = field(default_factory=dict)
    kept: bool = False
    eta_seconds: float | None = None

    @property
    def mean_dice(self) -> float | None:
        """Mean over the labels; None without validation."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else None

    def to_state(self) -> dict[str, Any]:
        """Plain values for training states and reports, under the keys of version 0.1."""
        values = asdict(self)
        values["best"] = values.pop("kept")
        return values

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> ValidationMetrics:
        """The inverse of `to_state`."""
        others = {name: value for name, value in values.items() if name != "best"}
        return cls(**others, kept=values["best"])


@dataclass(frozen=True)
class ValidationPreview:
    """One validation slice with the current prediction.

    Attributes:
        case: name of the scan.
        slice_index: index of the slice in the canonical stack.
        image: uint8 [rows, cols].
        reference: uint8 labels [rows, cols].
        predicted: uint8 labels [rows, cols].
    """

    case: str
    slice_index: int
    image: np.ndarray
    reference: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class FinetuneNote:
    """A note for the user before the training.

    Attributes:
        sentence: the note.
    """

    sentence: str


FinetuneEvents = Callable[[Any], None]
"""Called with every `ValidationMetrics` and `ValidationPreview`."""


@dataclass(frozen=True)
class FinetuneResult:
    """The outcome of a fine-tuning.

    Attributes:
        path: the bundle.
        dice: Dice of the kept weights on the validation slices by label name; empty without validation.
        validated_on: "given case", "held-out slices of the same scan" or "nothing".
        steps: optimizer steps.
        epochs: passes over the slices.
        seconds: duration, including interrupted runs.
        stopped: why it ended: "budget", "no more progress", "cancelled" or "loss not a number".
        notes: sentences on what was assumed, resampled, initialized or left out.
        history: all validations.
        advice: the notes that matter to users of the model; the others describe how it was made.
        model: the network with its manifest, in memory.
    """

    path: Path
    dice: dict[str, float]
    validated_on: str
    steps: int
    epochs: float
    seconds: float
    stopped: str
    notes: tuple[str, ...]
    history: tuple[ValidationMetrics, ...]
    advice: tuple[str, ...] = ()
    model: LoadedModel | None = field(default=None, repr=False, compare=False)


def ignore_events(event: Any) -> None:
    """Ignore an event."""
