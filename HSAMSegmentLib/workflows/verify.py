"""The job that compares a file with its stated SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path

from HSAMSegmentLib.errors import CheckpointError, RequestError
from HSAMSegmentLib.runtime.progress import CancelToken, ProgressTracker
from HSAMSegmentLib.workflows.events import Result
from HSAMSegmentLib.workflows.requests import VerifyRequest
from HSAMSegmentLib.workflows.run import Emit, JobContext

PIECE_BYTES = 16 * 2**20


def verify(request: VerifyRequest, emit: Emit, cancel: CancelToken, context: JobContext) -> Result:
    """Hash the file; the result holds "sha256" and "bytes".

    Raises:
        RequestError: if there is no such file.
        CheckpointError: if the hash is another one than stated.
    """
    path = Path(request.path)
    if not path.is_file():
        raise RequestError(f"There is no file {path}.")
    size = path.stat().st_size
    tracker = ProgressTracker(emit, stage=f"Checking {path.name}", steps=size // PIECE_BYTES + 1)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(PIECE_BYTES), b""):
            cancel.raise_if_cancelled()
            digest.update(piece)
            tracker.advance()
    if request.sha256 and digest.hexdigest() != request.sha256.lower():
        raise CheckpointError(
            f"The file {path.name} is not the one that was announced: its SHA-256 is {digest.hexdigest()}, expected "
            f"was {request.sha256}. It is damaged or another version; get it again."
        )
    return Result({"sha256": digest.hexdigest(), "bytes": size})
