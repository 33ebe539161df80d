"""The job that compares a file with its stated SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.errors import CheckpointError, RequestError
from HSAMSegmentLib.runtime.progress import ProgressTracker
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.requests import VerifyRequest

PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class VerifyResult:
    """The result of a `VerifyRequest`.

    Attributes:
        sha256: of the file, in hexadecimal.
        bytes: its size.
    """

    sha256: str
    bytes: int


def run(request: VerifyRequest, context: Context) -> VerifyResult:
    """Hash a file.

    Raises:
        RequestError: if there is no such file.
        CheckpointError: if the hash is another one than stated.
    """
    path = Path(request.path)
    if not path.is_file():
        raise RequestError(f"There is no file {path}.")
    size = path.stat().st_size
    tracker = ProgressTracker(context.progress, stage=f"Checking {path.name}", steps=size // PIECE_BYTES + 1)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(PIECE_BYTES), b""):
            context.cancel.raise_if_cancelled()
            digest.update(piece)
            tracker.advance()
    if request.sha256 and digest.hexdigest() != request.sha256.lower():
        raise CheckpointError(
            f"The file {path.name} is not the one that was announced: its SHA-256 is {digest.hexdigest()}, expected "
            f"was {request.sha256}. It is damaged or another version; get it again."
        )
    return VerifyResult(digest.hexdigest(), size)
