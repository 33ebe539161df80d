"""Locate the files that come with the program: catalog, built-in bundles, terminologies."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import HSAMSegmentLib
from HSAMSegmentLib.errors import HSAMSegmentError

CATALOG_FILE = "catalog.json"


def _candidates() -> tuple[Path, ...]:
    """Possible locations of the folder, one per kind of installation.

    A wheel ships it inside the package. In a source tree and in an installed Slicer extension it is next to the package
    (there, in `qt-scripted-modules`, merged with the module's own icons and forms).
    """
    package = Path(HSAMSegmentLib.__file__).resolve().parent
    return (package / "Resources", package.parent / "Resources")


@lru_cache(maxsize=1)
def resource_folder() -> Path:
    """The folder `Resources`, which contains `Models/catalog.json`.

    Raises:
        HSAMSegmentError: if the installation is incomplete.
    """
    for folder in _candidates():
        if (folder / "Models" / CATALOG_FILE).is_file():
            return folder
    raise HSAMSegmentError(
        f"The installation is incomplete: Models/{CATALOG_FILE} is neither in "
        f"{' nor in '.join(str(folder) for folder in _candidates())}. Install HSAMSegment again."
    )


def builtin_models_folder() -> Path:
    """The folder with the catalog and the bundles that come with the program."""
    return resource_folder() / "Models"
