"""Packages that only some of the commands need: the base installation does without them."""

from __future__ import annotations

import importlib.util

from HSAMSegmentLib.errors import RequestError


def require_extra(extra: str, *modules: str) -> None:
    """Make sure that the packages of an extra can be imported; nothing is imported.

    Args:
        extra: its name in pyproject.toml.
        modules: top-level modules that it brings.

    Raises:
        RequestError: naming the first one that is missing and the command that installs the extra.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise RequestError(
                f"This needs the package '{module}', which is not installed: pip install 'hsamsegment[{extra}]'"
            )
