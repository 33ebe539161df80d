"""An HTTP response that is read in a thread, so that the caller can stop at any moment. No torch here.

A stalled socket cannot be interrupted from outside, and `requests` cannot continue after a read timeout. So a daemon
thread reads into a short queue: the reader of the queue checks for a cancel ten times a second, and the thread ends by
itself at its next timeout. Killing the worker is no alternative: downloads also run on the command line, in Python, and
in the thread that replaces a worker, and each must react to a cancel within a second.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from HSAMSegmentLib.runtime.progress import CancelToken

POLL_SECONDS = 0.1
CHUNK_BYTES = 64 << 10
_QUEUE_LENGTH = 16


@dataclass(frozen=True)
class Head:
    """Head of a response: status, headers with case-insensitive names, address after redirects."""

    status: int
    headers: Mapping[str, str]
    url: str

    @property
    def content_length(self) -> int | None:
        """Announced length of the body as stored in the file, or None."""
        if self.headers.get("Content-Encoding", "identity") != "identity":
            return None
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdigit() else None


class Transfer:
    """A GET request in progress; use it as a context manager, `head` first, then `chunks`."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        connect_timeout_s: float,
        stall_timeout_s: float,
        cancel: CancelToken,
    ) -> None:
        self._url = url
        self._headers = dict(headers)
        self._timeouts = (connect_timeout_s, stall_timeout_s)
        self._cancel = cancel
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUE_LENGTH)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="download", daemon=True)

    def __enter__(self) -> Transfer:
        self._thread.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._left.set()

    def head(self) -> Head:
        """Wait for the server's response.

        Raises:
            requests.RequestException: if there is none.
            CancelledError: if the user cancels.
        """
        found: Head = self._next()
        return found

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in chunks, to its end.

        Raises:
            requests.RequestException: if the connection drops, stalls, or ends before the announced length.
            CancelledError: if the user cancels.
        """
        while True:
            chunk = self._next()
            if chunk is None:
                return
            yield chunk

    def _next(self) -> Any:
        while True:
            self._cancel.raise_if_cancelled()
            try:
                item = self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item

    def _put(self, item: Any) -> None:
        while not self._left.is_set():
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        """Body of the thread: puts everything, including errors, into the queue."""
        try:
            with requests.get(self._url, headers=self._headers, stream=True, timeout=self._timeouts) as response:
                self._put(Head(response.status_code, response.headers, response.url))
                for chunk in response.iter_content(CHUNK_BYTES):
                    self._put(chunk)
                    if self._left.is_set():
                        return
            self._put(None)
        except requests.RequestException as error:
            self._put(error)
        except (HTTPError, OSError, ValueError) as error:
            self._put(requests.ConnectionError(str(error)))
