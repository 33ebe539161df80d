"""Files that a command writes beside its main result: checked before the work begins, complete or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from HSAMSegmentLib.checkpoints.files import atomic_output, refuse_existing
from HSAMSegmentLib.errors import OutputError, RequestError


def check_outputs(paths: list[Path | None], *, overwrite: bool) -> None:
    """Check the outputs before the work begins, not after it.

    Raises:
        RequestError: if two outputs are the same file.
        OutputError: if one exists and may not be replaced, is a folder, or its folder does not exist.
    """
    given = [path for path in paths if path is not None]
    if len({path.absolute() for path in given}) < len(given):
        raise RequestError("Two outputs have the same name; give each its own.")
    for path in given:
        refuse_existing(path, overwrite)
        if not path.absolute().parent.is_dir():
            raise OutputError(f"The folder {path.absolute().parent} does not exist; create it or choose another one.")


def write_json(path: Path, data: Any, *, overwrite: bool) -> None:
    """Write plain JSON values, atomically.

    Raises:
        OutputError: if the file exists and may not be replaced, or cannot be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(text.encode("utf-8"))
