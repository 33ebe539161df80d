"""The store that a request names."""

from __future__ import annotations

from pathlib import Path

from HSAMSegmentLib.weights.catalog import load_catalog
from HSAMSegmentLib.weights.store import Store


def named_store(folder: str, catalog_file: str) -> Store:
    """The store in a folder, with a catalog; empty texts stand for the user's own and the program's own.

    Raises:
        CheckpointError: if the catalog is wrong.
    """
    return Store(folder or None, catalog=load_catalog(Path(catalog_file)) if catalog_file else None)
