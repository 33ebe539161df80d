"""What comparing in the background is asked for, and what comes out of it."""

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
        name: of the segmentation.
        layers: label arrays, their grids in the world.
        structures: what the values mean.
        grid: of the scan that it was drawn on, in the world, if that is known.
    """

    name: str
    layers: tuple[LayerInput, ...]
    structures: tuple[LayeredStructure, ...]
    grid: Geometry | None = None


@dataclass(frozen=True)
class CompareRequest:
    """Compare two segmentations.

    Attributes:
        first: A, what is judged.
        second: B, the reference.
        pairs: what is compared with what.
        output_folder: where the label map of the disagreement goes.
    """

    kind: ClassVar[str] = "compare"

    first: SideInput
    second: SideInput
    pairs: tuple[StructurePair, ...]
    output_folder: str


@dataclass(frozen=True)
class StructureScore:
    """How well one structure agrees.

    Attributes:
        name: of the structure.
        state: `BOTH`, `ONLY_FIRST`, `ONLY_SECOND`, `ABSENT` (empty in both) or `NOT_COMPARED` (A has it, B
            has no such structure).
        dice: 0 to 1, None where it does not exist.
        hd95_mm: 95 % Hausdorff distance, None where it does not exist.
        asd_mm: average symmetric surface distance, None where it does not exist.
        first_ml: volume in A.
        second_ml: volume in B.
        worst_dice: Dice of the slice that agrees least.
        worst_ras: a place in that slice in world RAS mm.
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
        first_name: of A.
        second_name: of B.
        scores: one per structure.
        mean: "dice", "hd95" and "asd" over the structures that have them; None where none has.
        counted: over how many.
        notes: sentences a user should read.
        geometry: grid of the disagreement, in the world.
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
