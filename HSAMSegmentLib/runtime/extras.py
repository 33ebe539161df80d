"""Optional packages for some commands, absent from the base installation."""

from __future__ import annotations

import importlib.util

from HSAMSegmentLib.errors import RequestError


def require_extra(extra: str, *modules: str) -> None:
    """Ensure that the packages of an extra can be imported, without importing them.

    Args:
        extra: its name in pyproject.toml.
        modules: top-level modules that it provides.

    Raises:
        RequestError: naming the first missing module and the command that installs the extra.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise RequestError(
                f"This needs the package '{module}', which is not installed: pip install 'hsamsegment[{extra}]'"
            )
