"""Headers whose voxels are in a file beside them, under names that ITK reads as patterns or as other files.

ITK and its libraries take a "%" in the name of a data file for the pattern of a series, and then hand out whatever is
in memory. Such a header is read through a copy that names its data plainly.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from HSAMSegmentLib.errors import VolumeError

_MOST_HEADER_BYTES = 1 << 20
_FIELDS = {
    ".mhd": re.compile(rb"^(ElementDataFile\s*=\s*)(.+?)(\s*)$", re.MULTILINE),
    ".nhdr": re.compile(rb"^(data ?file:\s*)(.+?)(\s*)$", re.MULTILINE | re.IGNORECASE),
}
_PLAIN = re.compile(r"[\w.,\- ]+")


@contextmanager
def readable_header(path: Path) -> Iterator[Path]:
    """The path under which ITK reads a file as what it is: itself, or a copy of its header for the time of the block.

    Raises:
        VolumeError: if the file with the voxels is missing; names it.
    """
    data = _data_file(path)
    if data is None:
        yield path
        return
    if not data.is_file():
        raise VolumeError(
            f'The voxels that "{path.name}" refers to cannot be read: there is no file "{data.name}" beside it. Copy '
            "it, too."
        )
    if _PLAIN.fullmatch(data.name):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="hsamsegment-") as folder:
        yield _plain_copy(path, data, Path(folder))


def _data_file(path: Path) -> Path | None:
    """The one file beside a detached header that holds its voxels; None if there is none, or a list or series."""
    field = _FIELDS.get(path.suffix.lower())
    if field is None:
        return None
    match = field.search(path.read_bytes()[:_MOST_HEADER_BYTES])
    if match is None:
        return None
    name = os.fsdecode(match.group(2))
    if name.upper() == "LOCAL" or name.upper().startswith("LIST"):
        return None
    is_series = "%" in name and re.search(r"\s-?\d+\s+-?\d+\s+-?\d+", name) is not None
    named = path.parent / name
    return None if is_series and not named.is_file() else named


def _plain_copy(path: Path, data: Path, folder: Path) -> Path:
    """A header in `folder` that names its data `voxels`; the data are linked, or copied where links do not work."""
    suffix = ".zraw" if data.suffix.lower() == ".zraw" else ".gz" if data.suffix.lower() == ".gz" else ".raw"
    beside = folder / f"voxels{suffix}"
    try:
        os.symlink(data.resolve(), beside)
    except OSError:
        shutil.copyfile(data, beside)
    content = path.read_bytes()
    field = _FIELDS[path.suffix.lower()]
    renamed = field.sub(lambda match: match.group(1) + beside.name.encode() + match.group(3), content, count=1)
    copy = folder / f"header{path.suffix.lower()}"
    copy.write_bytes(renamed)
    return copy
