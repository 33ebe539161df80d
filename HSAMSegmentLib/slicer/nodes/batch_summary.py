"""The table of a batch: one row per scan, one column per organ."""

from __future__ import annotations

from collections.abc import Sequence

import slicer

from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.slicer.nodes.tables import fill_table
from HSAMSegmentLib.workflows.segment_folder.folder_request import BatchRow

_TEXTS = (("Scan", ""), ("State", ""), ("Message", ""), ("Not found", ""), ("Output", ""), ("Model", ""))


def organ_names(rows: Sequence[BatchRow]) -> tuple[str, ...]:
    """All organs that were looked for, in the order in which they occur."""
    return tuple(dict.fromkeys(name for row in rows for name, _ in row.volumes_ml))


def summary_columns(rows: Sequence[BatchRow]) -> tuple[tuple[str, str], ...]:
    """Names and units of the columns."""
    return (*_TEXTS, ("Time", "s"), *((name, "mL") for name in organ_names(rows)))


def summary_rows(rows: Sequence[BatchRow]) -> list[tuple]:
    """The values; the volume of an organ is 0 where it was not found, and does not exist where it was not measured."""
    organs = organ_names(rows)
    return [
        (
            row.name,
            row.state,
            row.message,
            ", ".join(row.not_found),
            row.output,
            row.model,
            row.seconds or None,
            *(dict(row.volumes_ml).get(organ) for organ in organs),
        )
        for row in rows
    ]


class SummaryNode:
    """The table node of one batch, made with its first row."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._node = None

    @property
    def node_name(self) -> str:
        """Name of the table node, empty before there is one."""
        return self._node.GetName() if is_in_scene(self._node) else ""

    def show(self, rows: Sequence[BatchRow]) -> None:
        """Put the state of all scans into the node."""
        if not is_in_scene(self._node):
            name = slicer.mrmlScene.GenerateUniqueName(self._name)
            self._node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        fill_table(self._node, summary_columns(rows), summary_rows(rows), texts=len(_TEXTS))
