"""User options for segmentation, as plain data. No torch here: the panel and the command line fill it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.preprocess.rules import STAGES

STAGE_CHOICES = ("auto", *STAGES)
PRECISIONS = ("auto", "full", "mixed")


@dataclass(frozen=True)
class PostprocessOptions:
    """Post-processing steps, each with its own switch.

    Attributes:
        largest_piece: keep only the largest component of labels that are one piece (`Label.single_piece`).
        fill_holes: fill enclosed cavities of a label that hold no other label.
        minimum_ml: drop components smaller than this volume in milliliters; 0 keeps all.
    """

    largest_piece: bool = True
    fill_holes: bool = True
    minimum_ml: float = 0.1

    def __post_init__(self) -> None:
        if not self.minimum_ml >= 0.0:
            raise RequestError(f"The smallest volume to keep must be 0 mL or more, not {self.minimum_ml}.")


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment a volume.

    Attributes:
        organs: names of the labels to keep; empty for all. The network still decides between all of its labels, so a
            kept label has the same voxels as with all of them.
        roi: voxel box (i0, i1, j0, j1, k0, k1) in the volume's own IJK, upper bounds excluded. Voxels outside are
            background, but the network sees whole slices.
        batch_size: slices per forward pass; None to derive it from the available memory.
        precision: "full" (float32), "mixed" (half precision in the network) or "auto" (mixed if the hardware
            supports it).
        stages: decoding stages that labels come from: "both" (the mean of all), "last", or "auto" for the model's own
            choice.
        view_averaging: apply test-time augmentation and multi-planar averaging if the model asks for them; one plain
            view of one plane is faster.
        flip_averaging: average with the prediction for the mirrored slice; skipped, with a warning, for models that
            distinguish left from right.
        threads: CPU threads; None for torch's default (one per physical core, or OMP_NUM_THREADS).
        postprocess: post-processing steps.
    """

    organs: tuple[str, ...] = ()
    roi: tuple[int, int, int, int, int, int] | None = None
    batch_size: int | None = None
    precision: str = "auto"
    stages: str = "auto"
    view_averaging: bool = True
    flip_averaging: bool = False
    threads: int | None = None
    postprocess: PostprocessOptions = field(default_factory=PostprocessOptions)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise RequestError(f"The precision is one of {', '.join(PRECISIONS)}, not '{self.precision}'.")
        if self.stages not in STAGE_CHOICES:
            raise RequestError(f"The stages are one of {', '.join(STAGE_CHOICES)}, not '{self.stages}'.")
        if self.batch_size is not None and self.batch_size < 1:
            raise RequestError(f"The batch size must be 1 or more, not {self.batch_size}.")
        if self.threads is not None and self.threads < 1:
            raise RequestError(f"The number of threads must be 1 or more, not {self.threads}.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def selected_values(labels: LabelSet, organs: Sequence[str]) -> tuple[int, ...]:
    """Return the label values of the named organs, ignoring case and surrounding blanks; all values without names.

    Raises:
        RequestError: if the model has no label of that name.
    """
    if not organs:
        return tuple(label.value for label in labels)
    known = {label.name.strip().lower(): label.value for label in labels}
    unknown = [name for name in organs if name.strip().lower() not in known]
    if unknown:
        raise RequestError(
            f"This model does not segment {' or '.join(repr(name) for name in unknown)}. "
            f"It knows: {', '.join(label.name for label in labels)}."
        )
    wanted = {known[name.strip().lower()] for name in organs}
    return tuple(label.value for label in labels if label.value in wanted)


def check_roi(roi: Sequence[int] | None, geometry: Geometry) -> tuple[int, int, int, int, int, int]:
    """Validate the box to segment; None stands for the whole volume.

    Raises:
        RequestError: if the box is not six numbers, is empty, or extends beyond the volume.
    """
    size = geometry.size
    if roi is None:
        return (0, size[0], 0, size[1], 0, size[2])
    if len(roi) != 6:
        raise RequestError(f"A region needs six numbers (i0, i1, j0, j1, k0, k1), not {len(roi)}.")
    for axis, name in enumerate("ijk"):
        low, high = roi[2 * axis], roi[2 * axis + 1]
        if not 0 <= low < high <= size[axis]:
            raise RequestError(
                f"The region covers {name} from {low} up to, not including, {high}, but must lie within 0 and "
                f"{size[axis]} and not be empty."
            )
    i0, i1, j0, j1, k0, k1 = (int(bound) for bound in roi)
    return i0, i1, j0, j1, k0, k1
