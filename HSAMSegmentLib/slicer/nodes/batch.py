"""Many scans, one after the other: volumes of a scene, frames of a sequence, a folder. One that fails stops no other.

Knows no Qt: the engine that runs the jobs is handed in, and tells its events on the main thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Union

from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.folder_results import LoadedScan
from HSAMSegmentLib.slicer.nodes.navigation import set_visible, show_scan
from HSAMSegmentLib.slicer.nodes.segment_session import BoundRequest, SessionEvent, Written, is_in_scene
from HSAMSegmentLib.slicer.nodes.volumes import volume_problem
from HSAMSegmentLib.workflows.events import Cancelled, Failed, ItemDone, Result, sentence_for
from HSAMSegmentLib.workflows.requests import Request
from HSAMSegmentLib.workflows.segment_folder.folder_request import (
    CANCELLED,
    DONE,
    FAILED,
    SKIPPED,
    WAITING,
    BatchRow,
    FolderRequest,
    OnRows,
)

logger = logging.getLogger(__name__)

BindRequest = Callable[[object], BoundRequest]
"""From a volume node to what is asked of the engine."""


class BatchItem(Protocol):
    """One scan of a batch.

    Attributes:
        name: as a user reads it.
    """

    name: str

    def problem(self) -> str:
        """Why it cannot be segmented, as a sentence, asked when its turn comes; empty if it can."""

    def bound(self, make: BindRequest) -> BoundRequest:
        """What is asked of the engine."""

    def keep(self, written: Written) -> str:
        """Put the result where it belongs; returns the name of its node."""

    def drop(self) -> None:
        """There is no result, or it was kept: remove what was only made for the job."""

    def show(self) -> None:
        """Bring the scan into the slice views, with what was found in it."""

    def hide(self) -> None:
        """Another scan is shown: take what was found in this one out of sight."""


class RequestTaker(Protocol):
    """What runs the jobs."""

    def start(self, bound: BoundRequest, on_event: Callable[[SessionEvent], None]) -> None:
        """Segment in the background; raises RequestError if the request cannot be taken."""

    def start_request(self, request: Request, on_event: Callable[[SessionEvent], None]) -> None:
        """Run another kind of job in the background."""

    def cancel(self) -> None:
        """Ask the running job to stop."""


@dataclass(frozen=True)
class BatchListener:
    """Who is told what becomes of a batch.

    Attributes:
        rows: told whenever the state of a scan changes.
        progress: told fractions of the whole batch.
        end: told once at the end: None if every scan had its turn, else `Cancelled` or `Failed`.
    """

    rows: OnRows
    progress: Callable[[Progress], None]
    end: Callable[[SessionEvent | None], None]


class VolumeItem:
    """A volume of the scene; its result is a new segmentation."""

    def __init__(self, volume_node) -> None:
        self._node = volume_node
        self._result = None
        self.name = volume_node.GetName()

    def problem(self) -> str:
        """Why it cannot be segmented."""
        if not is_in_scene(self._node):
            return _("It was removed before its turn came.")
        return volume_problem(self._node)

    def bound(self, make: BindRequest) -> BoundRequest:
        """The request for the volume itself."""
        return make(self._node)

    def keep(self, written: Written) -> str:
        """It is in the scene already."""
        self._result = written.segmentation_node
        return self._result.GetName()

    def drop(self) -> None:
        """Nothing was made."""

    def show(self) -> None:
        """Bring the scan into the slice views with its result, unless they are gone."""
        if is_in_scene(self._node):
            show_scan(self._node)
        set_visible(self._result, True)

    def hide(self) -> None:
        """Hide the result, which may lie over another scan."""
        set_visible(self._result, False)


class Batch:
    """Runs one item after the other, and tells rows and progress of all of them."""

    def __init__(
        self,
        items: Sequence[BatchItem],
        engine: RequestTaker,
        bind: BindRequest,
        listener: BatchListener,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            items: what to segment.
            engine: runs the jobs.
            bind: makes the request for a volume.
            listener: is told what becomes of it.
        """
        self._items = list(items)
        self._engine = engine
        self._bind = bind
        self._listener = listener
        self.rows = tuple(BatchRow(item.name) for item in self._items)
        self._index = -1
        self._clock = (0.0, 0.0)
        self._cancelled = False
        self.is_running = False

    def start(self) -> None:
        """Begin with the first item."""
        self.is_running = True
        self._clock = (time.monotonic(), time.monotonic())
        self._listener.rows(self.rows)
        self._next()

    def cancel(self) -> None:
        """Stop; what is finished stays."""
        self._cancelled = True
        self._engine.cancel()

    def show(self, row: int) -> None:
        """Bring the scan of a row into the slice views, and its own result over it, not those of the others."""
        for item in self._items:
            item.hide()
        self._items[row].show()

    def _next(self) -> None:
        """Start the next item that can be; those that cannot get their reason."""
        while not self._cancelled and self._index + 1 < len(self._items):
            self._index += 1
            self._clock = (self._clock[0], time.monotonic())
            if self._started():
                return
        self._end()

    def _started(self) -> bool:
        item = self._items[self._index]
        problem = item.problem()
        if problem:
            self._note(SKIPPED, message=problem)
            return False
        try:
            self._engine.start(item.bound(self._bind), self._on_event)
        except (HSAMSegmentError, OSError) as error:
            item.drop()
            self._note(FAILED, message=sentence_for(error))
            return False
        return True

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, Progress):
            self._listener.progress(self._overall(event))
        elif isinstance(event, Written):
            self._keep(event)
            self._next()
        elif isinstance(event, Failed):
            self._items[self._index].drop()
            self._note(FAILED, message=event.cause)
            self._next()
        elif isinstance(event, Cancelled):
            self._items[self._index].drop()
            self._cancelled = True
            self._end()

    def _keep(self, written: Written) -> None:
        item, outcome = self._items[self._index], written.outcome
        name = item.keep(written)
        item.drop()
        self._note(
            DONE,
            message=" ".join(note for note in (written.note, *outcome.warnings) if note),
            volumes_ml=tuple((organ.label.name, organ.volume_ml) for organ in outcome.organs),
            output=name,
            model=outcome.model_id,
        )

    def _note(self, state: str, **facts) -> None:
        seconds = time.monotonic() - self._clock[1]
        row = replace(self.rows[self._index], state=state, seconds=seconds, **facts)
        self.rows = (*self.rows[: self._index], row, *self.rows[self._index + 1 :])
        self._listener.rows(self.rows)

    def _overall(self, inner: Progress) -> Progress:
        count = len(self._items)
        fraction = (self._index + inner.fraction) / count
        elapsed = time.monotonic() - self._clock[0]
        eta = elapsed * (1.0 - fraction) / fraction if fraction >= 0.02 else None
        place = _("{number} of {count}: {name}")
        detail = place.format(number=self._index + 1, count=count, name=self.rows[self._index].name)
        return Progress(fraction, inner.stage, detail, eta)

    def _end(self) -> None:
        self.is_running = False
        if self._cancelled:
            self.rows = _with_the_rest_cancelled(self.rows)
            self._listener.rows(self.rows)
        self._listener.end(Cancelled() if self._cancelled else None)


class FolderBatch:
    """A folder of scans: one job, which tells of each of them."""

    def __init__(self, request: FolderRequest, engine: RequestTaker, listener: BatchListener) -> None:
        """Prepare; `start` begins."""
        self._request, self._engine, self._listener = request, engine, listener
        self.rows: tuple[BatchRow, ...] = ()
        self.is_running = False
        self._loaded: dict[int, LoadedScan] = {}

    def start(self) -> None:
        """Begin.

        Raises:
            RequestError: if another job is running.
        """
        self._engine.start_request(self._request, self._on_event)
        self.is_running = True

    def cancel(self) -> None:
        """Stop; the files of what is finished stay."""
        self._engine.cancel()

    def show(self, row: int) -> None:
        """Load the scan of a row and its result, if they are not in the scene yet, and show these alone.

        Raises:
            HSAMSegmentError: if a file cannot be read.
        """
        for loaded in self._loaded.values():
            loaded.hide()
        self._loaded.setdefault(row, LoadedScan()).show(self.rows[row])

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, Progress):
            self._listener.progress(event)
        elif isinstance(event, ItemDone):
            self._note(event)
        elif isinstance(event, (Result, Failed, Cancelled)):
            self.is_running = False
            self.rows = _with_the_rest_cancelled(self.rows)
            self._listener.rows(self.rows)
            self._listener.end(None if isinstance(event, Result) else event)

    def _note(self, event: ItemDone) -> None:
        row = from_plain(BatchRow, event.values)
        self.rows = (*self.rows[: event.index], row, *self.rows[event.index + 1 :])
        if row.state != WAITING or event.index == event.count - 1:  # all at once at the start, not one by one
            self._listener.rows(self.rows)


def _with_the_rest_cancelled(rows: tuple[BatchRow, ...]) -> tuple[BatchRow, ...]:
    return tuple(replace(row, state=CANCELLED) if row.state == WAITING else row for row in rows)


AnyBatch = Union[Batch, FolderBatch]
