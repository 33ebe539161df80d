"""Replace a segmentation atomically, so that a kill at any moment can be repaired.

The finished segmentation is first completed under a hidden name; then the older one is moved aside, the report is
written, and the finished one is renamed. Both hidden names share a number. The next run finds what a killed program
left, and completes the replacement, or rolls it back if the report was not written yet.
"""

from __future__ import annotations

import glob
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.labels.label_maps import names_path
from HSAMSegmentLib.report.segmentation_report import read_report
from HSAMSegmentLib.runtime.atomic_files import refuse_existing, sweep_leftovers
from HSAMSegmentLib.workflows.segment.result_records import same_output

logger = logging.getLogger(__name__)

_NEW, _OLD = "new", "old"


@contextmanager
def finished_file(final: Path) -> Iterator[Path]:
    """Yield the hidden name for a finished segmentation; a leftover is deleted when the block ends."""
    temporary = _hidden(final, uuid.uuid4().hex[:8], _NEW)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        names_path(temporary).unlink(missing_ok=True)


def atomic_replace(
    finished: Path, final: Path, *, overwrite: bool, write_report: Callable[[], object] = lambda: None
) -> None:
    """Rename a finished segmentation and its sidecar to their final names.

    Args:
        finished: path from `finished_file`, completely written.
        final: its final name.
        overwrite: replace an older file, which is restored if anything fails.
        write_report: writes the report that describes it.

    Raises:
        OutputError: if a file exists and may not be replaced, or from the report.
    """
    refuse_existing(final, overwrite)
    with _moved_aside(final, _number(finished)):
        write_report()
        _rename(finished, final)


def mend_interrupted(final: Path, report: Path | None) -> None:
    """Complete or roll back a replacement that a killed program left halfway.

    Args:
        final: name of the segmentation.
        report: the report to be written with it, or None.
    """
    for old in sorted(final.parent.glob(f".????????.{_OLD}.{glob.escape(final.name)}")):
        finished = _hidden(final, _number(old), _NEW)
        forward = finished.exists() and (report is None or _accounts_for(report, finished, final))
        if final.exists() and not finished.exists():
            old.unlink()  # only this was missing
        elif forward and not final.exists():
            logger.warning("An interrupted exchange of %s is brought to its end.", final)
            _rename(finished, final)
            old.unlink()
        elif not final.exists():
            logger.warning("An interrupted exchange of %s is taken back.", final)
            os.replace(old, final)
            finished.unlink(missing_ok=True)
            names_path(finished).unlink(missing_ok=True)
    for name in (final.name, names_path(final).name):
        sweep_leftovers(final.parent, f".????????.{_NEW}.{glob.escape(name)}")


def _rename(finished: Path, final: Path) -> None:
    if names_path(finished).exists():
        os.replace(names_path(finished), names_path(final))
    os.replace(finished, final)


def _accounts_for(report: Path, finished: Path, final: Path) -> bool:
    """Whether a report describes the content of a finished file."""
    try:
        record = read_report(report).get("record", {})
    except RequestError:
        return False
    return same_output(record, finished, name=final.name)


def _hidden(final: Path, number: str, state: str) -> Path:
    return final.with_name(f".{number}.{state}.{final.name}")


def _number(hidden: Path) -> str:
    return hidden.name.split(".")[1]


@contextmanager
def _moved_aside(final: Path, number: str) -> Iterator[None]:
    """Keep an older file under a hidden name while it is replaced, and restore it on failure."""
    if not final.exists():
        yield
        return
    aside = _hidden(final, number, _OLD)
    os.replace(final, aside)
    try:
        yield
    finally:
        if final.exists():
            aside.unlink()
        else:
            os.replace(aside, final)
