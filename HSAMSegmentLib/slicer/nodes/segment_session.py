"""One segmentation from the click to the segments: exports the scan, runs the job, writes what it found.

Knows no Qt: its owner calls `tick` again and again on the main thread (a timer, or a loop that waits).
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Union

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError, RequestError
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.segmentations.segments import (
    create_segmentation,
    has_grid,
    output_problem,
    write_outcome,
    write_without_scan,
)
from HSAMSegmentLib.slicer.nodes.undo import SegmentationHistory
from HSAMSegmentLib.slicer.nodes.volumes import dicom_series, volume_array, volume_geometry
from HSAMSegmentLib.worker.array_export import ArrayExport
from HSAMSegmentLib.worker.runners import Runner
from HSAMSegmentLib.workflows.events import Cancelled, Event, Failed, Result, ending_of, is_terminal
from HSAMSegmentLib.workflows.requests import Request
from HSAMSegmentLib.workflows.segment.segment_request import SegmentOutcome, SegmentRequest

logger = logging.getLogger(__name__)

SCAN_FILE = "scan.npy"


class Folders(Protocol):
    """Where a job's files go."""

    def job_folder(self) -> Path:
        """An empty folder."""

    def close(self) -> None:
        """Remove all of them."""


@dataclass(frozen=True)
class BoundRequest:
    """A request, and the nodes that it reads from and writes to.

    Attributes:
        request: what to segment and how; the session says where its files lie.
        volume_node: the scan.
        segmentation_node: where the segments go; None for a new node.
        undoable: whether undo takes this result back, and forgets an earlier one; one of many does not.
    """

    request: SegmentRequest
    volume_node: Any
    segmentation_node: Any = None
    undoable: bool = True


def bind_request(
    volume_node: Any,
    model: str,
    device: str = "auto",
    options: SegmentOptions | None = None,
    segmentation_node: Any = None,
    *,
    surfaces: bool = False,
    preview: bool = False,
    undoable: bool = True,
) -> BoundRequest:
    """The request for the scan in a node.

    Raises:
        RequestError: if the node has no usable voxels.
    """
    volume_array(volume_node)
    scan = VolumeInput(
        array_file=SCAN_FILE,
        geometry=volume_geometry(volume_node),
        name=volume_node.GetName(),
        modality=volume_node.GetAttribute("DICOM.Modality") or "",
        series=dicom_series(volume_node),
    )
    request = SegmentRequest(
        input=scan,
        model=model,
        device=device,
        options=options or SegmentOptions(),
        surfaces=surfaces,
        preview=preview,
    )
    return BoundRequest(request, volume_node, segmentation_node, undoable)


@dataclass(frozen=True)
class Written:
    """The segments are in the scene: what `tick` reports instead of the job's result.

    Attributes:
        outcome: what was found.
        segmentation_node: where it is.
        volume_node: its scan, None if that is gone.
        note: a sentence if something differs from the request, else empty.
    """

    outcome: SegmentOutcome
    segmentation_node: object
    volume_node: object = None
    note: str = ""


class Steps(Protocol):
    """Something that is handed over to the job piece by piece."""

    def step(self) -> bool:
        """Do one more piece; returns whether all is done."""


class Task(Protocol):
    """What is done with nodes other than segmenting one scan: what goes to the job, and what is made of its result."""

    def prepare(self, folder: Path) -> tuple[Request, Steps]:
        """The request, and what has to be handed over before, into a folder that is removed at the end."""

    def finish(self, values: dict[str, Any]) -> object:
        """What `Done` tells, made of the values of the job's result; its files are still there."""


@dataclass(frozen=True)
class Done:
    """A task is done: what `tick` reports instead of the job's result.

    Attributes:
        value: what the task made of it.
    """

    value: object


SessionEvent = Union[Event, Written, Done]


class Session:
    """Runs one job at a time. Nothing in the scene changes before the result is complete."""

    def __init__(self, runner: Runner, folders: Folders, history: SegmentationHistory) -> None:
        self._runner = runner
        self._folders = folders
        self._history = history
        self._bound: BoundRequest | None = None
        self._task: Task | None = None
        self._export: Steps | None = None
        self._request: Request | None = None
        self._folder: Path | None = None
        self._transform_id: str | None = None
        self._voxels: tuple[object, int] | None = None
        self._cancelled = False

    @property
    def is_busy(self) -> bool:
        """Whether a job is on its way."""
        return self._bound is not None or self._request is not None or self._runner.is_running

    def start(self, bound: BoundRequest) -> None:
        """Segment the scan of a node; `tick` does the rest.

        Raises:
            RequestError: if another one is on its way, or the scan or the output cannot be used.
        """
        self._refuse_if_busy()
        array = volume_array(bound.volume_node)
        problem = output_problem(bound.segmentation_node, bound.volume_node)
        if problem:
            raise RequestError(problem)
        self._folder = self._folders.job_folder()
        self._export = ArrayExport(array, self._folder / SCAN_FILE)
        self._request = self._with_files(bound.request)
        self._transform_id = bound.volume_node.GetTransformNodeID()
        self._voxels = _voxel_state(bound.volume_node)
        self._bound, self._cancelled = bound, False

    def start_request(self, request: Request) -> None:
        """Run another kind of job (a download, a probe) with the same events.

        Raises:
            RequestError: if something is on its way already.
        """
        self._refuse_if_busy()
        self._bound, self._export, self._cancelled = None, None, False
        self._request = request

    def start_task(self, task: Task) -> None:
        """Hand over what a task needs, run its job, and let it make something of the result.

        Raises:
            RequestError: if something is on its way already, or the task's nodes cannot be used.
        """
        self._refuse_if_busy()
        self._bound, self._cancelled = None, False
        self._folder = self._folders.job_folder()
        try:
            self._request, self._export = task.prepare(self._folder)
        except (HSAMSegmentError, OSError):
            self._remove_files()
            raise
        self._task = task

    def cancel(self) -> None:
        """Ask for the end; within a second `tick` reports it."""
        self._cancelled = True
        self._runner.cancel()

    @property
    def interval_ms(self) -> int:
        """How often `tick` wants to be called."""
        return self._runner.poll_interval_ms

    def close(self) -> None:
        """End the job and the worker and remove all files; the session cannot be used afterwards."""
        self._runner.close()
        self._folders.close()
        self._bound = self._task = self._request = self._export = None

    def tick(self) -> list[SessionEvent]:
        """Do a small piece of work; returns what is new, oldest first."""
        if self._request is not None:
            return self._prepare()
        if not self._runner.is_running:
            return []
        events = [self._finish(event) if is_terminal(event) else event for event in self._runner.poll()]
        return events

    def _refuse_if_busy(self) -> None:
        if self.is_busy:
            raise RequestError(_("Another job is running; wait for its end or cancel it first."))

    def _with_files(self, request: SegmentRequest) -> SegmentRequest:
        """The request with the files of this job."""
        scan = replace(request.input, array_file=str(self._folder / SCAN_FILE))
        return replace(request, input=scan, output_folder=str(self._folder))

    def _prepare(self) -> list[SessionEvent]:
        """Export one more piece of the scan, then start the job."""
        if self._cancelled:
            return [self._finish(Cancelled())]
        try:
            if self._export is not None and not self._export.step():
                return [Progress(0.0, "Handing over the scan")]
            request, self._request, self._export = self._request, None, None
            self._runner.start(request)
        except (OSError, HSAMSegmentError) as error:
            return [self._finish(ending_of(error))]
        return [Progress(0.0, "Starting")]

    def _finish(self, event: Event) -> SessionEvent:
        """Write a result, and be free for the next job whatever comes of it."""
        bound, task = self._bound, self._task
        self._bound = self._task = self._request = self._export = None
        try:
            if isinstance(event, Result) and task is not None:
                return Done(task.finish(event.values))
            if isinstance(event, Result) and bound is not None:
                return self._write(from_plain(SegmentOutcome, event.values), bound)
            return event
        except (HSAMSegmentError, OSError, ValueError) as error:
            logger.exception("The result could not be written")
            return ending_of(error)
        finally:
            self._remove_files()

    def _write(self, outcome: SegmentOutcome, bound: BoundRequest) -> Written | Failed:
        volume = bound.volume_node
        if not is_in_scene(volume):
            return self._write_orphan(outcome, _("The scan was removed while it was segmented"), bound)
        if not has_grid(volume, outcome.geometry):
            return self._write_orphan(outcome, _("The scan was changed while it was segmented"), bound)
        target, note = bound.segmentation_node, ""
        if target is not None and (not is_in_scene(target) or output_problem(target, volume)):
            target = None
            note = _("The chosen segmentation is gone or was moved, so the result is in a new one.")
        if _voxel_state(volume) != self._voxels:
            changed = _("The scan's voxels were changed while it was segmented; the result is of the earlier ones.")
            note = f"{note} {changed}"
        if target is None:
            target = create_segmentation(volume, _("{scan} organs").format(scan=volume.GetName()))
            if bound.undoable:
                self._history.remember_new(target)
        elif bound.undoable:
            self._history.remember(target)
        write_outcome(outcome, volume, target)
        return Written(outcome, target, volume, note.strip())

    def _write_orphan(self, outcome: SegmentOutcome, reason: str, bound: BoundRequest) -> Written:
        transform = slicer.mrmlScene.GetNodeByID(self._transform_id) if self._transform_id else None
        node = write_without_scan(outcome, _("Organs of a removed scan"), transform)
        if bound.undoable:
            self._history.remember_new(node)
        kept = _("{reason}; the result is kept in '{name}' on the grid it had.")
        return Written(outcome, node, None, kept.format(reason=reason, name=node.GetName()))

    def _remove_files(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _voxel_state(volume_node) -> tuple[object, int]:
    """What is another one after the voxels of a volume node were replaced or changed."""
    image = volume_node.GetImageData()
    return image, image.GetPointData().GetScalars().GetMTime()


def is_in_scene(node) -> bool:
    """Whether a node is still part of the current scene."""
    return node is not None and node.GetScene() is not None and slicer.mrmlScene.GetNodeByID(node.GetID()) is node
