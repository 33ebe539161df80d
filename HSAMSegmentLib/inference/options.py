"""What a user can choose when segmenting, as plain data. No torch here: the panel and the command line fill it in."""

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
    """What is tidied after the network, each of it on its own switch.

    Attributes:
        largest_piece: keep only the largest piece of labels that are one piece (`Label.single_piece`).
        fill_holes: fill cavities that a label encloses, where nothing else is labeled.
        minimum_ml: drop pieces smaller than this volume in milliliters; 0 keeps them.
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
        organs: names of the labels to keep, empty for all. The network decides between all of its labels all the
            same, so a kept label has the voxels that it would have among all.
        roi: voxel box (i0, i1, j0, j1, k0, k1) in the volume's own IJK, upper bounds excluded; outside of it stays
            background, while the network sees whole slices.
        batch_size: slices per run of the network, None to take it from the memory that is there.
        precision: "full" (float32), "mixed" (half precision in the network) or "auto" (mixed where the hardware has
            instructions for it).
        stages: which decoding stages the labels come from: "both" (the mean of all), "last", or "auto" for what the
            model asks for.
        view_averaging: whether a model that asks for several views of each slice, or for slices along other planes,
            gets them; one plain view of one plane is faster.
        flip_averaging: average with the prediction for the mirrored slice; left out, with a warning, for models that
            tell left from right.
        threads: CPU threads, None for torch's own number (one per physical core, or OMP_NUM_THREADS).
        postprocess: what is tidied afterwards.
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
    """Label values of the named organs (case and surrounding blanks do not matter), all of them if none is named.

    Raises:
        RequestError: if the model does not know a name.
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
    """The box to segment, the whole volume if `roi` is None.

    Raises:
        RequestError: if the box is not six numbers, is empty, or reaches out of the volume.
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
