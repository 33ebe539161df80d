"""Comparing two segmentations of the scene: the task, the table node, and the overlay of the disagreement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.evaluation.label_matching import (
    CODE,
    NAME,
    VALUE,
    LabelPair,
    StructurePair,
    match_labels,
)
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.layered_segmentation import LayeredSegmentation, LayerInput
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.segmentations.node_layers import node_labels, node_layers, node_problem
from HSAMSegmentLib.slicer.nodes.segmentations.segments import add_labels, shared_labelmap
from HSAMSegmentLib.slicer.nodes.tables import fill_table
from HSAMSegmentLib.worker.array_export import ArrayExport, ExportChain
from HSAMSegmentLib.workflows.compare.compare_request import (
    NOT_COMPARED,
    CompareOutcome,
    CompareRequest,
    SideInput,
    StructureScore,
)

PAIR_ATTRIBUTE = "HSAMSegment.Compared"
_OVERLAY = (
    Label(1, _("Only in A"), (0.95, 0.55, 0.10)),
    Label(2, _("Only in B"), (0.15, 0.45, 0.95)),
    Label(3, _("Different structures"), (0.85, 0.2, 0.75)),
)


@dataclass(frozen=True)
class Compared:
    """What a `CompareTask` made.

    Attributes:
        outcome: the numbers.
        disagreement: uint8 (k, j, i) on the outcome's grid.
        table_node: the numbers as a node.
    """

    outcome: CompareOutcome
    disagreement: np.ndarray
    table_node: object


def match_nodes(first, second) -> tuple[LabelPair, ...]:
    """What of one node is probably what of the other: by code, then by name, then by number where names say nothing."""
    return match_labels(node_labels(first), node_labels(second), order=(CODE, NAME, VALUE))


def guess_pairs(first, second) -> tuple[StructurePair, ...]:
    """What `match_nodes` found, as a `CompareTask` takes it.

    Raises:
        RequestError: if a node holds nothing to compare.
    """
    for node in (first, second):
        problem = node_problem(node)
        if problem:
            raise RequestError(problem)

    def position(label: Label | None) -> int | None:
        return None if label is None else label.value - 1

    return tuple(
        StructurePair(pair.name, position(pair.prediction), position(pair.reference))
        for pair in match_nodes(first, second)
    )


class CompareTask:
    """Compares a node (A) with a reference (B); neither of them is changed."""

    def __init__(self, first, second, pairs: Sequence[StructurePair]) -> None:
        """Say what to compare.

        Args:
            first: segmentation or label map, A.
            second: segmentation or label map, B.
            pairs: what with what, as positions in `node_labels` of both.
        """
        self._nodes = (first, second)
        self._pairs = tuple(pairs)
        self._key = f"{first.GetID()} {second.GetID()}"

    def prepare(self, folder: Path) -> tuple[CompareRequest, ExportChain]:
        """The request, and the arrays to hand over.

        Raises:
            RequestError: if a node cannot be used.
        """
        exports: list[Callable[[], ArrayExport]] = []
        sides = [_side(node_layers(node), folder / prefix, exports) for node, prefix in zip(self._nodes, ("a", "b"))]
        return CompareRequest(*sides, self._pairs, str(folder)), ExportChain(exports)

    def finish(self, values: dict[str, Any]) -> Compared:
        """Put the numbers into a table node."""
        outcome = from_plain(CompareOutcome, values)
        return Compared(outcome, np.load(outcome.label_file), write_table(outcome, self._key))


def _side(content: LayeredSegmentation, base: Path, exports: list[Callable[[], ArrayExport]]) -> SideInput:
    layers = []
    for number, (array, geometry) in enumerate(content.layers):
        path = base.with_name(f"{base.name}-{number}.npy")
        exports.append(partial(ArrayExport, array, path))
        layers.append(LayerInput(str(path), geometry))
    return SideInput(content.name, tuple(layers), content.structures, content.grid)


COLUMNS = (
    ("Structure", ""),
    ("State", ""),
    ("Dice", ""),
    ("HD95", "mm"),
    ("ASD", "mm"),
    ("Volume A", "mL"),
    ("Volume B", "mL"),
    ("Difference", "mL"),
    ("Difference of B", "%"),
    ("Worst slice Dice", ""),
    ("Worst slice R", "mm"),
    ("Worst slice A", "mm"),
    ("Worst slice S", "mm"),
)
"""Names and units; everything but the first two is a number, or nothing where it does not exist."""


def score_values(score: StructureScore) -> tuple[str | float | None, ...]:
    """The values of one row, in the order of `COLUMNS`."""
    return (
        score.name,
        score.state,
        score.dice,
        score.hd95_mm,
        score.asd_mm,
        score.first_ml,
        None if score.state == NOT_COMPARED else score.second_ml,
        score.difference_ml,
        score.difference_percent,
        score.worst_dice,
        *(score.worst_ras or (None, None, None)),
    )


def write_table(outcome: CompareOutcome, key: str):
    """Put the numbers into a table node: that of the last comparison of the same two nodes, else a new one."""
    known = (
        node for node in slicer.util.getNodesByClass("vtkMRMLTableNode") if node.GetAttribute(PAIR_ATTRIBUTE) == key
    )
    node = next(known, None)
    name = _("{first} compared with {second}").format(first=outcome.first_name, second=outcome.second_name)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(name))
        node.SetAttribute(PAIR_ATTRIBUTE, key)
    fill_table(node, COLUMNS, [score_values(score) for score in outcome.scores], texts=2)
    node.SetDescription(f"A: {outcome.first_name}. B (reference): {outcome.second_name}.")
    return node


def show_disagreement(compared: Compared):
    """Add a segmentation of where the two differ, in the world; remove the node to be rid of it."""
    outcome = compared.outcome
    name = _("Disagreement of {first} and {second}").format(first=outcome.first_name, second=outcome.second_name)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    size = outcome.geometry.size
    image = shared_labelmap(compared.disagreement, (0, size[0], 0, size[1], 0, size[2]), outcome.geometry)
    add_labels(node, _OVERLAY, image)
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(0.8)
    display.SetVisibility3D(False)
    return node
