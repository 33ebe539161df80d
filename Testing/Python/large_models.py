"""A model file that takes minutes to hash and no space on the disk."""

from __future__ import annotations

import json
from pathlib import Path

from model_files import manifest

from HSAMSegmentLib.weights.bundle import MANIFEST_KEY

SIZE = 200 * 2**30


def write_large_model(path: Path, model_id: str = "large", size: int = SIZE) -> Path:
    """Write a sparse bundle: a true header, and one tensor of zeros that is a hole in the file."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {MANIFEST_KEY: manifest(model_id).to_json()}, "zeros": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + size)
    return path
