"""Download weights files: resumed, verified, from several mirrors, canceled within a second. No torch here.

A file appears under its name only when it is complete and its hash matches. A partial download is kept as `NAME.part`
when the network fails, the user cancels or the process is killed, and the next attempt resumes it.

We retry ourselves instead of with `urllib3.Retry`: we resume a broken body where it ended, reset the count after
progress, switch mirrors, and allow a cancel during pauses. `Retry` repeats a request before its body is read, and
sleeps.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import requests

from HSAMSegmentLib.errors import CheckpointError, DownloadError
from HSAMSegmentLib.runtime.atomic_files import explain_write_error, make_folder
from HSAMSegmentLib.runtime.disk import format_bytes, require_free_space
from HSAMSegmentLib.runtime.progress import CancelToken, Progress, ProgressCallback, ignore_progress
from HSAMSegmentLib.weights.download.http_response import Head, Transfer
from HSAMSegmentLib.weights.download.partial_file import DownloadOrigin, PartialFile
from HSAMSegmentLib.weights.file_kind import looks_like_web_page

_REPORT_EVERY_S = 0.2
_SPEED_WINDOW_S = 5.0

_log = logging.getLogger(__name__)

_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WORTH_ANOTHER_ROUND_BYTES = 1 << 20
# If the exact size is unknown, a server may send this many times the approximate one.
_LARGEST_SURPRISE = 4


class DownloadProgress:
    """Turns byte counts into `Progress` reports: fraction, recent speed, ETA."""

    def __init__(self, report: ProgressCallback, stage: str) -> None:
        self._report = report
        self._stage = stage
        self._samples: deque[tuple[float, int]] = deque()
        self._done = 0
        self._total: int | None = None
        self._reported = 0.0

    def start(self, done: int, total: int | None) -> None:
        """Start, or resume, at `done` of `total` bytes."""
        self._done, self._total = done, total
        self._samples.clear()
        self._say(time.monotonic())

    def add(self, count: int) -> None:
        """Count received bytes."""
        self._done += count
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S:
            self._say(now)

    def finish(self) -> None:
        """Report the end."""
        self._report(Progress(1.0, self._stage, format_bytes(self._done), 0.0))

    def _say(self, now: float) -> None:
        self._reported = now
        self._samples.append((now, self._done))
        while now - self._samples[0][0] > _SPEED_WINDOW_S:
            self._samples.popleft()
        seconds = now - self._samples[0][0]
        speed = (self._done - self._samples[0][1]) / seconds if seconds > 0 else 0.0
        total = "" if self._total is None else f" of {format_bytes(self._total)}"
        pace = f", {format_bytes(speed)}/s" if speed > 0 else ""
        eta = (self._total - self._done) / speed if self._total is not None and speed > 0 else None
        fraction = min(self._done / self._total, 1.0) if self._total else 0.0
        self._report(Progress(fraction, self._stage, f"{format_bytes(self._done)}{total}{pace}", eta))


@dataclass(frozen=True)
class DownloadSettings:
    """Timeouts and retries of a download.

    Attributes:
        connect_timeout_s: maximum time until a server responds.
        stall_timeout_s: longest pause within a transfer.
        attempts: attempts per mirror without progress in between.
        backoff_s: pause before the second attempt; doubled for each further one.
        longest_backoff_s: upper bound on the pause.
    """

    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 30.0
    attempts: int = 4
    backoff_s: float = 1.0
    longest_backoff_s: float = 20.0


@dataclass(frozen=True)
class RemoteFile:
    """The file to download.

    Attributes:
        title: display name.
        urls: addresses of the same file, best first.
        sha256: expected hash; empty if unknown.
        size_bytes: exact size; None if unknown.
        approximate_bytes: for the disk check if the exact size is unknown.
        page: web page for users, named if the download fails.
    """

    title: str
    urls: Sequence[str]
    sha256: str = ""
    size_bytes: int | None = None
    approximate_bytes: int = 0
    page: str = ""


class _TransientError(Exception):
    """An error that justifies another attempt at the same mirror."""


class _MirrorError(Exception):
    """This mirror does not have the file."""


def download_file(
    remote: RemoteFile,
    target: Path,
    *,
    progress: ProgressCallback = ignore_progress,
    cancel: CancelToken | None = None,
    check: Callable[[Path], None] | None = None,
    settings: DownloadSettings | None = None,
) -> Path:
    """Download a file, or resume an earlier download.

    Proxies are taken from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). If a second process requests the
    same target, it waits and finds the finished file.

    Args:
        remote: the file to download, with its expected hash and size.
        target: final name; an existing file is returned unchanged.
        progress: called with completed fraction, bytes, speed and ETA.
        cancel: checked ten times a second.
        check: called with the complete file before it is renamed; may raise `CheckpointError` to reject it.
        settings: timeouts and retries.

    Returns:
        `target`.

    Raises:
        DownloadError: if no mirror delivered the file; gives each mirror's reason and the remedy.
        OutputError: if the disk is too small or the folder not writable.
        CancelledError: if the user cancels.
    """
    target = Path(target)
    cancel = cancel or CancelToken()
    make_folder(target.parent)
    with _only_one(target, remote.title, progress, cancel):
        if target.exists():
            return target
        return _Download(remote, target, progress, cancel, check, settings or DownloadSettings()).run()


@contextmanager
def _only_one(target: Path, title: str, progress: ProgressCallback, cancel: CancelToken) -> Iterator[None]:
    """Let one process at a time download to this target; the system releases the lock of a killed one."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(target.with_name(target.name + ".lock")))
    try:
        while True:
            cancel.raise_if_cancelled()
            try:
                lock.acquire(timeout=0.2, poll_interval=0.05)
                break
            except Timeout:
                progress(Progress(0.0, f"Waiting for another download of {title}"))
    except (OSError, NotImplementedError) as error:
        if not isinstance(error, NotImplementedError):
            raise explain_write_error(error, target) from error
        _log.warning("This disk cannot lock files; two downloads of %s at once would disturb each other.", title)
    try:
        yield
    finally:
        lock.release()
        # Another process may wait for the lock; on Windows its file cannot be deleted then.
        with suppress(PermissionError):
            Path(lock.lock_file).unlink(missing_ok=True)


class _Download:
    """One download, from the first mirror to the verified file."""

    def __init__(
        self,
        remote: RemoteFile,
        target: Path,
        progress: ProgressCallback,
        cancel: CancelToken,
        check: Callable[[Path], None] | None,
        settings: DownloadSettings,
    ) -> None:
        self._remote = remote
        self._target = target
        self._cancel = cancel
        self._check = check
        self._settings = settings
        self._partial = PartialFile(target)
        self._shown = DownloadProgress(progress, f"Downloading {remote.title}")

    def run(self) -> Path:
        self._partial.load(self._remote.sha256, self._cancel.raise_if_cancelled)
        self._require_space(self._remote.size_bytes or self._remote.approximate_bytes)
        reasons = []
        for url in self._remote.urls:
            try:
                self._fetch_from(url)
                return self._finish()
            except _MirrorError as error:
                _log.warning("%s did not deliver %s: %s", url, self._remote.title, error)
                reasons.append(f"{urlparse(url).hostname}: {error}")
        raise DownloadError(self._failure(reasons))

    def _failure(self, reasons: list[str]) -> str:
        kept = ""
        if self._partial.size:
            kept = f" What has arrived ({format_bytes(self._partial.size)}) is kept and will be continued."
        page = f" from {self._remote.page}" if self._remote.page else ""
        return (
            f"{self._remote.title} could not be downloaded ({'; '.join(reasons) or 'no address is known'}).{kept} "
            f"Check the network and the proxy (HTTPS_PROXY), or get the file in a browser{page} and import it."
        )

    def _require_space(self, total: int) -> None:
        missing = max(0, total - self._partial.size)
        require_free_space(self._target.parent, missing, f"Downloading {self._remote.title}")

    def _fetch_from(self, url: str) -> None:
        """Try one mirror until the file is complete and correct, or further attempts make no sense."""
        failures, furthest = 0, self._partial.size
        may_start_again = self._partial.size > 0
        while True:
            try:
                self._transfer(url)
                self._verify(may_start_again)
                return
            except _TransientError as error:
                may_start_again &= self._partial.size > 0
                grown = self._partial.size - furthest
                failures = 1 if grown >= _WORTH_ANOTHER_ROUND_BYTES else failures + 1
                furthest = max(furthest, self._partial.size)
                if failures >= self._settings.attempts:
                    raise _MirrorError(str(error)) from error
                _log.info("Trying %s again: %s", url, error)
                self._pause(failures)

    def _pause(self, failures: int) -> None:
        seconds = min(self._settings.backoff_s * 2 ** (failures - 1), self._settings.longest_backoff_s)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._cancel.raise_if_cancelled()
            time.sleep(min(0.1, max(0.0, end - time.monotonic())))

    def _transfer(self, url: str) -> None:
        """One request: the rest of the file, or all of it."""
        known = self._remote.size_bytes
        if known is not None and self._partial.size == known:
            return
        settings = self._settings
        try:
            with Transfer(
                url,
                self._headers(url),
                connect_timeout_s=settings.connect_timeout_s,
                stall_timeout_s=settings.stall_timeout_s,
                cancel=self._cancel,
            ) as transfer:
                total = self._accept(url, transfer.head())
                self._receive(transfer, total)
        except requests.RequestException as error:
            raise _as_reason(error) from error

    def _headers(self, url: str) -> dict[str, str]:
        """Request the rest only if the hash, or the server, guarantees that it belongs to the same file."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "HSAMSegment"}
        origin = self._partial.origin
        validator = origin.validator if origin is not None and origin.url == url else ""
        if not validator and not self._remote.sha256:
            self._partial.restart()
        if self._partial.size:
            headers["Range"] = f"bytes={self._partial.size}-"
            if validator:
                headers["If-Range"] = validator
        return headers

    def _accept(self, url: str, head: Head) -> int | None:
        """Check the server's response and set the part to where its body starts; return the total size if known."""
        if head.status == 416:
            self._partial.remove()
            raise _TransientError("the server has less of the file than had arrived")
        if head.status not in (200, 206):
            raise _refusal(head.status)
        if head.headers.get("Content-Type", "").startswith("text/html"):
            raise _MirrorError("a web page came in place of the file (a login page or a proxy)")
        total = self._continued_total(head) if head.status == 206 else self._restarted_total(head)
        known = self._remote.size_bytes
        if known is not None and total is not None and total > known:
            raise _MirrorError(f"its file has {total} bytes, the catalog says {known}")
        if known is None and total is not None:
            self._require_space(total)
        self._partial.remember(DownloadOrigin(url, _validator(head), self._remote.sha256))
        return known if known is not None else total

    def _continued_total(self, head: Head) -> int | None:
        match = _CONTENT_RANGE.fullmatch(head.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._partial.size:
            self._partial.remove()
            raise _TransientError("the server continued at a wrong place of the file")
        return None if match[3] == "*" else int(match[3])

    def _restarted_total(self, head: Head) -> int | None:
        self._partial.restart()
        return head.content_length

    def _receive(self, transfer: Transfer, total: int | None) -> None:
        limit = total if total is not None else _LARGEST_SURPRISE * self._remote.approximate_bytes
        self._shown.start(self._partial.size, total)
        for chunk in transfer.chunks():
            if self._partial.size == 0 and looks_like_web_page(chunk[:256]):
                self._partial.remove()
                raise _MirrorError("a web page came in place of the file (a login page or a proxy)")
            if limit and self._partial.size + len(chunk) > limit:
                self._partial.remove()
                raise _MirrorError(f"it sent more than the {limit} bytes that the file should have")
            self._partial.append(chunk)
            self._shown.add(len(chunk))
        if total is not None and self._partial.size < total:
            raise _TransientError(f"the connection ended after {self._partial.size} of {total} bytes")

    def _verify(self, may_start_again: bool) -> None:
        """Verify the hash; a resumed download that fails gets one more attempt from the start."""
        wanted, found = self._remote.sha256, self._partial.sha256
        if not wanted or wanted == found:
            return
        self._partial.remove()
        if may_start_again:
            raise _TransientError("the continued file was damaged")
        raise _MirrorError(f"its file is another one (SHA-256 {found}, expected {wanted}) and was removed")

    def _finish(self) -> Path:
        """Check the content, then rename the file."""
        if self._check is not None:
            try:
                self._check(self._partial.path)
            except CheckpointError as error:
                self._partial.remove()
                raise _MirrorError(str(error).rstrip(".")) from error
        self._partial.rename_to(self._target)
        self._shown.finish()
        return self._target


def _validator(head: Head) -> str:
    """Validator for later requests; weak ETags do not guarantee identical bytes."""
    etag = head.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else head.headers.get("Last-Modified", "")


def _refusal(status: int) -> Exception:
    if status in _TRY_AGAIN:
        return _TransientError(f"the server is in trouble (HTTP {status})")
    words = {401: "asks for a login", 403: "refused it", 404: "does not have it", 407: "is behind a proxy with a login"}
    return _MirrorError(f"the server {words.get(status, 'did not deliver it')} (HTTP {status})")


def _as_reason(error: requests.RequestException) -> Exception:
    """Decide which network errors justify another attempt, and describe them."""
    if isinstance(error, requests.exceptions.SSLError):
        return _MirrorError("the secure connection failed (a certificate that this computer does not trust)")
    if isinstance(error, requests.exceptions.ProxyError):
        return _TransientError("the proxy did not answer or refused")
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return _TransientError("the server did not answer in time")
    if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return _TransientError("the connection failed or broke off")
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return _MirrorError("it redirects in a circle")
    return _MirrorError(f"the request failed ({type(error).__name__})")
