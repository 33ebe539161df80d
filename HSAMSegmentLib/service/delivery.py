"""Deliver a result once: after the client has received all of it, nothing is left on the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK_BYTES = 64 << 10


class Delivery(Response):
    """A file, and what to do after it was sent or the client disconnected.

    Args:
        path: the file.
        headers: headers of the response; the length is added.
        ended: called with whether all of it was sent.
        silence_seconds: how long the client may stall before it counts as gone.
        before: bytes before the file.
        after: bytes after the file.
        media_type: media type of the response.
    """

    def __init__(
        self,
        path: Path,
        *,
        headers: dict[str, str],
        media_type: str,
        ended: Callable[[bool], None],
        silence_seconds: float,
        before: bytes = b"",
        after: bytes = b"",
    ) -> None:
        self._path = path
        self._ended = ended
        self._silence_seconds = silence_seconds
        self._before = before
        self._after = after
        self._length = len(before) + path.stat().st_size + len(after)
        super().__init__(headers={**headers, "content-length": str(self._length)}, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it while watching whether the client is still connected."""
        left = asyncio.ensure_future(_until_client_leaves(receive))
        is_complete = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            is_complete = await self._send_all(send, left)
        finally:
            left.cancel()
            await run_in_threadpool(self._ended, is_complete)

    async def _send_all(self, send: Send, left: asyncio.Future[Any]) -> bool:
        """Send all pieces; return whether the client was connected until the last one, after which it may leave."""
        rest, is_there = self._length, True
        async for piece in self._pieces():
            rest -= len(piece)
            is_there = not left.done()
            if not is_there:
                break
            message = {"type": "http.response.body", "body": piece, "more_body": rest > 0}
            try:
                await asyncio.wait_for(send(message), self._silence_seconds)
            except asyncio.TimeoutError:
                return False  # the response stays incomplete, so uvicorn closes the connection
        return is_there and rest == 0

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self._before:
            yield self._before
        with open(self._path, "rb") as stream:
            while chunk := await run_in_threadpool(stream.read, _CHUNK_BYTES):
                yield chunk
        if self._after:
            yield self._after


async def _until_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
