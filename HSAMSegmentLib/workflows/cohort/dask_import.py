"""Dask is an extra: what is said where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

from HSAMSegmentLib.errors import RequestError

PACKAGES = ("distributed", "cryptography")


def require_dask() -> None:
    """Make sure that Dask is installed.

    Raises:
        RequestError: if it is not; names the command that installs it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"Several workers, and schedulers, need Dask; install it with: pip install {' '.join(missing)} (the extra "
            "'cluster'). Without it, --shard 1/N, 2/N, ... in N processes do the same."
        )
