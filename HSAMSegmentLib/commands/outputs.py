"""Files that a command writes beside its main result: complete or not at all, never over an existing one unasked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import OutputError, RequestError


def refuse_existing(paths: list[Path | None], *, overwrite: bool) -> None:
    """Check the outputs before the work begins, not after it.

    Raises:
        RequestError: if two outputs are the same file.
        OutputError: if one exists and may not be replaced, is a folder, or its folder does not exist.
    """
    given = [path for path in paths if path is not None]
    if len({path.absolute() for path in given}) < len(given):
        raise RequestError("Two outputs have the same name; give each its own.")
    for path in given:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file.")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already; choose another name or add --overwrite.")
        if not path.absolute().parent.is_dir():
            raise OutputError(f"The folder {path.absolute().parent} does not exist; create it or choose another one.")


def write_json(path: Path, data: Any) -> None:
    """Write plain JSON values, atomically.

    Raises:
        OutputError: if the file cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.absolute().parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            json.dump(data, stream, indent=2, ensure_ascii=False, allow_nan=False)
            stream.write("\n")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
