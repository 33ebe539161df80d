"""The networks of the package `segment-anything`, which tests and benchmarks compare with; skips where it is missing.

`import segment_anything` runs the package's `__init__`, which needs torchvision. Its subpackage `modeling` needs only
torch, so it is loaded from its own folder.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

_MODULE_NAME = "segment_anything_modeling"


@cache
def sam_modeling() -> ModuleType:
    """Load `segment_anything.modeling` without the package around it."""
    package = importlib.util.find_spec("segment_anything")
    if package is None:
        pytest.skip("the package segment-anything is not installed")
    folder = Path(next(iter(package.submodule_search_locations))) / "modeling"
    spec = importlib.util.spec_from_file_location(
        _MODULE_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module
    spec.loader.exec_module(module)
    return module


def sam_part(module: str, name: str) -> type:
    """One class of `segment_anything.modeling`, such as ("common", "LayerNorm2d")."""
    sam_modeling()
    return getattr(sys.modules[f"{_MODULE_NAME}.{module}"], name)
