"""Request and outcome of a comparison in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from HSAMSegmentLib.evaluation.label_matching import StructurePair
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.layered_segmentation import LayeredStructure, LayerInput

BOTH, ONLY_FIRST, ONLY_SECOND, ABSENT, NOT_COMPARED = "both", "only in A", "only in B", "absent", "not compared"


@dataclass(frozen=True)
class SideInput:
    """One of the two segmentations.

    Attributes:
        name: name of the segmentation.
        layers: label arrays, with grids in world coordinates.
        structures: the structures of the layers.
        grid: grid of the scan that it was drawn on, in world coordinates, if known.
    """

    name: str
    layers: tuple[LayerInput, ...]
    structures: tuple[LayeredStructure, ...]
    grid: Geometry | None = None


@dataclass(frozen=True)
class CompareRequest:
    """Compare two segmentations.

    Attributes:
        first: segmentation A, to be judged.
        second: segmentation B, the reference.
        pairs: the structures to compare with each other.
        output_folder: destination of the label map of the disagreement.
    """

    kind: ClassVar[str] = "compare"

    first: SideInput
    second: SideInput
    pairs: tuple[StructurePair, ...]
    output_folder: str


@dataclass(frozen=True)
class StructureScore:
    """Scores of one structure.

    Attributes:
        name: name of the structure.
        state: `BOTH`, `ONLY_FIRST`, `ONLY_SECOND`, `ABSENT` (empty in both) or `NOT_COMPARED` (A has the structure, B
            does not).
        dice: 0 to 1, None if undefined.
        hd95_mm: 95 % Hausdorff distance, None if undefined.
        asd_mm: average symmetric surface distance, None if undefined.
        first_ml: volume in A.
        second_ml: volume in B.
        worst_dice: Dice of the slice with the worst agreement.
        worst_ras: a position in that slice in world RAS mm.
    """

    name: str
    state: str
    dice: float | None = None
    hd95_mm: float | None = None
    asd_mm: float | None = None
    first_ml: float = 0.0
    second_ml: float = 0.0
    worst_dice: float | None = None
    worst_ras: tuple[float, float, float] | None = None

    @property
    def difference_ml(self) -> float | None:
        """A minus B; None if it was not compared."""
        return None if self.state == NOT_COMPARED else self.first_ml - self.second_ml

    @property
    def difference_percent(self) -> float | None:
        """A minus B in percent of B; None if B is empty."""
        return 100.0 * (self.first_ml - self.second_ml) / self.second_ml if self.second_ml > 0 else None


@dataclass(frozen=True)
class CompareOutcome:
    """The result of a `CompareRequest`.

    Attributes:
        first_name: name of A.
        second_name: name of B.
        scores: one per structure.
        mean: "dice", "hd95" and "asd" over the structures with a value; None if there are none.
        counted: number of structures in each mean.
        notes: sentences for the user.
        geometry: grid of the disagreement, in world coordinates.
        label_file: `.npy` file of the disagreement, uint8 (k, j, i): 1 only in A, 2 only in B, 3 different structures.
    """

    first_name: str
    second_name: str
    scores: tuple[StructureScore, ...]
    mean: dict[str, float | None]
    counted: dict[str, int]
    notes: tuple[str, ...]
    geometry: Geometry
    label_file: str
