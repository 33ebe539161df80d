"""What is compared with what: structures on layers, and pairs of them. Plain data, which a request can carry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayeredStructure:
    """One structure of a segmentation.

    Attributes:
        name: as a user reads it.
        layer: number of its layer, None if it has no voxels.
        value: its value there.
    """

    name: str
    layer: int | None
    value: int


@dataclass(frozen=True)
class StructurePair:
    """What is compared with what: positions in the structures of A and of B; None where one has no such structure."""

    name: str
    first: int | None
    second: int | None
