"""The networks of the `segment-anything` package, without the rest of it.

`import segment_anything` runs the package's `__init__`, which builds a predictor on torchvision. Its subpackage
`segment_anything.modeling` needs only torch and numpy and refers to nothing outside of itself, so it is loaded from its
own folder as a package of its own. Nothing in `sys.modules` under the name `segment_anything` is touched.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from HSAMSegmentLib.errors import HSAMSegmentError

_MODULE_NAME = "HSAMSegmentLib_segment_anything_modeling"
_ADVICE = (
    "The Python package 'segment-anything' {what}; HSAMSegment builds its networks from it. "
    "Install it with: pip install --no-deps segment-anything"
)


class MissingPackageError(HSAMSegmentError):
    """A Python package that the networks need is missing or damaged."""


@cache
def sam_modeling() -> ModuleType:
    """Load `segment_anything.modeling` (Kirillov et al., ICCV 2023) without the package around it.

    Raises:
        MissingPackageError: if the package is not installed, or its `modeling` part cannot be loaded.
    """
    folder = _modeling_folder()
    spec = importlib.util.spec_from_file_location(
        _MODULE_NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError, SyntaxError) as error:
        del sys.modules[_MODULE_NAME]
        raise MissingPackageError(_ADVICE.format(what=f"is damaged ({error})")) from error
    return module


def sam_part(module: str, name: str) -> type:
    """One class of `segment_anything.modeling`, such as ("common", "LayerNorm2d").

    Raises:
        MissingPackageError: if the package is not installed or has no such part.
    """
    sam_modeling()
    try:
        return getattr(sys.modules[f"{_MODULE_NAME}.{module}"], name)
    except (KeyError, AttributeError) as error:
        raise MissingPackageError(_ADVICE.format(what=f"has no modeling.{module}.{name}")) from error


def _modeling_folder() -> Path:
    # find_spec of a top-level name reads where the package lies and does not run it.
    spec = importlib.util.find_spec("segment_anything")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(_ADVICE.format(what="is not installed"))
    folder = Path(next(iter(spec.submodule_search_locations))) / "modeling"
    if not (folder / "__init__.py").is_file():
        raise MissingPackageError(_ADVICE.format(what=f"has no folder {folder.name}"))
    return folder
