"""Rows of texts and numbers into table nodes and CSV files, and the table of a batch: one row per scan."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk

from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene
from HSAMSegmentLib.workflows.segment_folder.folder_request import BatchRow

Columns = Sequence["tuple[str, str]"]
"""Name and unit of each; the unit may be empty."""

_TEXTS = (("Scan", ""), ("State", ""), ("Message", ""), ("Not found", ""), ("Output", ""), ("Model", ""))


def fill_table(node, columns: Columns, rows: Sequence[Sequence[Any]], *, texts: int) -> None:
    """Replace the content of a table node.

    Args:
        node: the table node.
        columns: name and unit of each.
        rows: their values; a number that does not exist is None, and becomes "not a number".
        texts: how many of the first columns are text.
    """
    modified = node.StartModify()
    node.RemoveAllColumns()
    for position, (name, unit) in enumerate(columns):
        is_text = position < texts
        array = vtk.vtkStringArray() if is_text else vtk.vtkDoubleArray()
        array.SetName(title(name, unit))
        for row in rows:
            value = row[position]
            array.InsertNextValue(str(value) if is_text else float("nan") if value is None else float(value))
        node.AddColumn(array)
    node.SetUseColumnTitleAsColumnHeader(False)
    node.SetLocked(True)
    node.EndModify(modified)


def write_csv(path: Path, columns: Columns, rows: Sequence[Sequence[Any]], *, overwrite: bool) -> None:
    """Write a CSV file, completely or not at all; a number that does not exist becomes an empty cell.

    Raises:
        OutputError: if the file exists and may not be overwritten, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([title(name, unit) for name, unit in columns])
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(text.getvalue().encode("utf-8"))


def title(name: str, unit: str) -> str:
    """The head of a column."""
    return f"{name} ({unit})" if unit else name


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
