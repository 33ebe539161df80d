"""Keep output of C libraries on stderr away from the terminal, so that our own one line stands out."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO

from HSAMSegmentLib.images.sitk_images import quiet_itk

logger = logging.getLogger(__name__)

_STANDARD_ERROR = 2
_LOGGED_CHARACTERS = 4000
_state = threading.Lock()
_depth = 0


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Redirect what GDCM, ITK, their decoders and pydicom print while a file is read to the debug log.

    Decoders print to the file descriptor, bypassing Python's streams and ITK's own switch, so the descriptor itself is
    redirected to a temporary file. Only the outermost caller does this; threads that read concurrently share it.
    """
    if not _enter():
        try:
            yield
        finally:
            _leave()
        return
    try:
        with quiet_itk(), warnings.catch_warnings(), _quiet_pydicom(), _held_back():
            warnings.simplefilter("ignore")
            yield
    finally:
        _leave()


def _enter() -> bool:
    """Count a caller; return whether it is the outermost one."""
    global _depth
    with _state:
        _depth += 1
        return _depth == 1


def _leave() -> None:
    global _depth
    with _state:
        _depth -= 1


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Silence pydicom, which logs its warnings: Python prints such records if no handler is installed."""
    library = logging.getLogger("pydicom")
    before = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(before)


@contextmanager
def _held_back() -> Iterator[None]:
    with ExitStack() as stack:
        try:
            caught = stack.enter_context(tempfile.TemporaryFile())
            before = os.dup(_STANDARD_ERROR)
        except OSError:  # a program with a window may have no stderr, and a full disk no space
            caught = None
        if caught is not None:
            stack.callback(_log, caught)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, _STANDARD_ERROR)
            os.dup2(caught.fileno(), _STANDARD_ERROR)
        yield


def _log(caught: BinaryIO) -> None:
    with suppress(OSError):
        caught.seek(0)
        text = caught.read(_LOGGED_CHARACTERS).decode("utf-8", "replace").strip()
        if text:
            logger.debug("A library wrote while a file was read: %s", text)
