"""Files that a command writes beside its main result: complete or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from HSAMSegmentLib.runtime.atomic_files import atomic_output


def write_json(path: Path, data: Any, *, overwrite: bool) -> None:
    """Write plain JSON values, atomically.

    Raises:
        OutputError: if the file exists and may not be replaced, or cannot be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))
