"""Keep what C libraries write to the standard error away from the terminal, where our one line belongs."""

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
    """Hold back what GDCM, ITK, their decoders and pydicom write while a file is read; it goes to the debug log.

    Decoders print to the file descriptor, past Python's streams and ITK's own switch, so the descriptor itself is
    turned to a temporary file. Only the outermost caller does this; threads that read at the same time share it.
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
    """Count a caller; whether it is the outermost one."""
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
    """pydicom logs what it warns of, and Python prints such a record where no handler is set up."""
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
        except OSError:  # a program with a window may have no standard error, and a full disk has no place to write
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
