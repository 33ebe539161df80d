"""Console output: progress and notes on stderr, results on stdout, nothing when quiet."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from HSAMSegmentLib.errors import CancelledError
from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.runtime.progress import CancelToken, Progress

SECONDS_BETWEEN_LINES = 15.0
SECONDS_BEFORE_NEW_STAGE = 2.0


class WatchedToken(CancelToken):
    """A cancel token that records whether anybody has checked it yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_watched = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the work was asked to stop."""
        self.is_watched = True
        return super().is_cancelled

    def raise_if_cancelled(self) -> None:
        """Stop the work here if canceled.

        Raises:
            CancelledError: if `cancel` was called.
        """
        self.is_watched = True
        super().raise_if_cancelled()


@contextmanager
def cancelled_by_signals(cancel: WatchedToken) -> Iterator[None]:
    """Within the context, SIGINT and SIGTERM set the token, so that the work stops between steps and cleans up.

    If the work has not checked the token yet (for example while torch is imported), and at a second signal,
    KeyboardInterrupt is raised immediately.
    """
    asked = False

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked or not cancel.is_watched:
            raise KeyboardInterrupt
        asked = True
        cancel.cancel()

    previous = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Console:
    """Console output for the user.

    Progress is a bar if stderr is a terminal, otherwise an occasional line; brief work shows none. Use it as a context
    manager around long work, so that the bar is closed before anything else is written.
    """

    def __init__(self, *, quiet: bool) -> None:
        """With `quiet`, only errors are shown, and these are written elsewhere."""
        self._quiet = quiet
        self._bar: Any = None  # a tqdm bar while it is on the screen
        self._stage = ""
        self._last_line = time.monotonic()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close_bar()

    def result(self, text: str) -> None:
        """Write a result to stdout."""
        if not self._quiet:
            self.close_bar()
            print(text)

    def note(self, text: str) -> None:
        """Write a remark to stderr."""
        if not self._quiet:
            self.close_bar()
            print(text, file=sys.stderr)

    def ask(self, question: str) -> bool:
        """Ask on the terminal; any answer but yes means no.

        Raises:
            CancelledError: if the user presses Ctrl-C.
        """
        self.close_bar()
        # The program's own handler would only set a flag, and `input` would keep waiting.
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        except KeyboardInterrupt:
            raise CancelledError("Cancelled.") from None
        finally:
            signal.signal(signal.SIGINT, previous)

    def progress(self, progress: Progress) -> None:
        """Show progress; a `ProgressCallback`."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._show_bar(progress)
        else:
            self._show_line(progress)

    def close_bar(self) -> None:
        """Close the progress bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_bar(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
            self._bar = tqdm(total=1.0, bar_format=form, leave=False, file=sys.stderr, dynamic_ncols=True)
        self._bar.set_description_str(_described(progress), refresh=False)
        remaining = f"{format_seconds(progress.eta_seconds)} left" if progress.eta_seconds is not None else ""
        self._bar.set_postfix_str(remaining, refresh=False)
        self._bar.n = progress.fraction
        self._bar.refresh()

    def _show_line(self, progress: Progress) -> None:
        now = time.monotonic()
        wait = SECONDS_BETWEEN_LINES if progress.stage == self._stage else SECONDS_BEFORE_NEW_STAGE
        if now - self._last_line < wait or progress.fraction >= 1.0:
            return
        self._stage, self._last_line = progress.stage, now
        remaining = f", {format_seconds(progress.eta_seconds)} left" if progress.eta_seconds is not None else ""
        print(f"{_described(progress)}: {100 * progress.fraction:.0f} %{remaining}", file=sys.stderr, flush=True)


def _described(progress: Progress) -> str:
    return f"{progress.stage} ({progress.detail})" if progress.detail else progress.stage


def format_seconds(seconds: float) -> str:
    """Format a duration: "8 s", "2 min 05 s", "1 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns with spaces: the first one left, numbers right."""
    table = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    right = [column > 0 and _is_numeric([row[column] for row in rows]) for column in range(len(headers))]
    lines = [
        "  ".join(cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(row, widths, right))
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)


def _is_numeric(cells: Sequence[str]) -> bool:
    texts = [cell.lstrip("+-") for cell in cells if cell not in ("", "-")]
    return bool(texts) and all(text[:1].isdigit() for text in texts)


def write_json(path: Path, data: Any, *, overwrite: bool) -> None:
    """Write plain JSON values, atomically.

    Raises:
        OutputError: if the file exists and may not be replaced, or cannot be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))
