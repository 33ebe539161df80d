"""Statistics as a tidy table: one row per scan and structure, one column per value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.measurement.scan import ScanMeasurements
from HSAMSegmentLib.measurement.statistics import StructureStatistics
from HSAMSegmentLib.runtime.atomic_files import atomic_output

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    "scan",
    *(item.name for item in fields(StructureStatistics)),
    "intensity_unit",
    "training_low_ml",
    "training_high_ml",
    "remarks",
    "model",
    "output",
)


def data_frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pandas.DataFrame:
    """A data frame of rows by column.

    Raises:
        RequestError: if pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise RequestError("A data frame needs pandas; install it with 'pip install pandas'.") from error
    return pandas.DataFrame(list(rows), columns=list(columns))


@dataclass(frozen=True)
class Statistics:
    """Measured structures of one or many scans.

    Attributes:
        rows: one per scan and structure; `COLUMNS` to values, None if unknown.
        notes: sentences on scans that could not be measured.
    """

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, structure: str) -> dict[str, Any]:
        """The row of a structure by name, ignoring case, from the first scan that has it.

        Raises:
            KeyError: listing the available structures.
        """
        for row in self.rows:
            if row["structure"].lower() == structure.lower():
                return row
        raise KeyError(f"{structure}; there are {', '.join(dict.fromkeys(row['structure'] for row in self.rows))}")

    def to_dataframe(self) -> pandas.DataFrame:
        """Tabulate with one row per scan and structure.

        Raises:
            RequestError: if pandas is not installed.
        """
        return data_frame(self.rows, COLUMNS)

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a CSV file, atomically.

        Raises:
            OutputError: if the name does not end in .csv, or if the file exists or cannot be written.
        """
        check_table_path(Path(path))
        write_table(self.rows, Path(path), overwrite=overwrite)
        return Path(path)


def table_rows(scan: str, measured: ScanMeasurements, *, model: str = "", output: str = "") -> Iterator[dict[str, Any]]:
    """The rows of one scan; cells that do not apply are None.

    Args:
        scan: name of the scan.
        measured: its measurements.
        model: ID of the model.
        output: file of the segmentation.
    """
    for item in measured.statistics:
        low, high = (measured.ranges_ml or {}).get(item.structure, (None, None))
        remarks = [finding.text for finding in measured.findings if finding.structure == item.structure]
        yield {
            "scan": scan,
            **item.to_json(),
            "intensity_unit": measured.intensity_unit,
            "training_low_ml": low,
            "training_high_ml": high,
            "remarks": "; ".join(remarks),
            "model": model,
            "output": output,
        }


def write_table(rows: Iterable[Mapping[str, Any]], path: Path, *, overwrite: bool = False) -> None:
    """Write rows as CSV (UTF-8, decimal points, empty cells for unknown values), atomically.

    Raises:
        OutputError: if the file exists and may not be replaced, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(row.get(name)) for name in COLUMNS})
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(text.getvalue().encode("utf-8", "backslashreplace"))


def is_table(path: Path) -> bool:
    """Whether a file is a table that `write_table` wrote."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            return stream.readline().rstrip("\r\n").split(",")[:4] == list(COLUMNS[:4])
    except OSError:
        return False


def check_table_path(path: Path) -> None:
    """Ensure that a file name is valid for a table.

    Raises:
        OutputError: if it does not end in .csv.
    """
    if path.suffix.lower() != ".csv":
        raise OutputError(f'Statistics are a .csv file, not "{path.name}".')


def _cell(value: Any) -> Any:
    """Prefix text that spreadsheets take for a formula with a quote, since names come from foreign files."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
