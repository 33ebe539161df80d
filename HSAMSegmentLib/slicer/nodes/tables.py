"""Rows of texts and numbers into table nodes and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vtk

from HSAMSegmentLib.runtime.atomic_files import atomic_output

Columns = Sequence["tuple[str, str]"]
"""Name and unit of each; the unit may be empty."""


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
