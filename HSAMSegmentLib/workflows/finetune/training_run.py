"""A fine-tuning with everything needed to continue it, in a folder that outlives scene, worker and program.

request.json       the `FinetuneRequest`; written last, so that a folder without it holds nothing of use
case-1-scan.npy    copies of the scene's arrays
history.jsonl      loss and Dice, one line per validation
running.json       the process that is working on it
stop               request of the user: "pause" or "stop"
done               the model is in the store; the folder can be deleted
MODEL.safetensors, MODEL.safetensors.training, preview.png
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from HSAMSegmentLib.errors import HSAMSegmentError, RequestError
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder
from HSAMSegmentLib.training.request import BUNDLE_SUFFIX, FinetuneRequest
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

logger = logging.getLogger(__name__)

PAUSE, STOP = "pause", "stop"
PREFIX = "course-"
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class UnfinishedRun:
    """A training run that can be continued.

    Attributes:
        request: the request.
        history: validations so far; empty if it ended before the first one.
        has_state: whether trained weights are on disk.
    """

    request: FinetuneRequest
    history: tuple[ValidationRecord, ...]
    has_state: bool

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.request.folder)

    @property
    def best_dice(self) -> float | None:
        """The highest mean Dice so far."""
        known = [record.mean_dice for record in self.history if record.mean_dice is not None]
        return max(known) if known else None

    @property
    def seconds(self) -> float:
        """Training time at the last validation."""
        return self.history[-1].seconds if self.history else 0.0


class TrainingRun:
    """The folder of one training run."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def create(cls, parent: Path, model_id: str) -> TrainingRun:
        """Create a new folder.

        Raises:
            OutputError: if that fails.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{PREFIX}{stamp}-{os.getpid()}-{model_id}"
        folder, number = parent / name, 1
        while folder.exists():
            number += 1
            folder = parent / f"{name}-{number}"
        return cls(make_folder(folder))

    @property
    def request_file(self) -> Path:
        """File with the request."""
        return self.folder / "request.json"

    @property
    def preview_file(self) -> Path:
        """Picture of a validation slice."""
        return self.folder / "preview.png"

    @property
    def history_file(self) -> Path:
        """File with all validations, one per line."""
        return self.folder / "history.jsonl"

    @property
    def done_file(self) -> Path:
        """Marker of a training run whose model is in the store."""
        return self.folder / "done"

    def model_file(self, model_id: str) -> Path:
        """The bundle, before it is in the store."""
        return self.folder / f"{model_id}{BUNDLE_SUFFIX}"

    def state_file(self, model_id: str) -> Path:
        """The training state, as named by `training.loop.checkpointer.state_path`."""
        return self.folder / f"{model_id}{BUNDLE_SUFFIX}.training"

    @property
    def has_state(self) -> bool:
        """Whether trained weights are on disk."""
        return any(any(self.folder.glob(pattern)) for pattern in ("*.safetensors", "*.safetensors.training"))

    def is_complete(self, model_id: str) -> bool:
        """Whether the fine-tuning is finished: there is a bundle, and no state to continue from."""
        return self.model_file(model_id).is_file() and not self.state_file(model_id).is_file()

    def write_request(self, request: FinetuneRequest) -> None:
        """Store the request, so that the training run can continue without the scene.

        Raises:
            OutputError: if it cannot be written.
        """
        from HSAMSegmentLib.workflows.requests import request_to_json

        with atomic_output(self.request_file, overwrite=True) as stream:
            stream.write(json.dumps(request_to_json(request)).encode())

    def read_request(self) -> FinetuneRequest:
        """Read the request.

        Raises:
            RequestError: if the file is missing or damaged.
        """
        from HSAMSegmentLib.workflows.requests import request_from_json

        try:
            request = request_from_json(json.loads(self.request_file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise RequestError(f"The fine-tuning in {self.folder} cannot go on: {error}. Delete it.") from error
        if not isinstance(request, FinetuneRequest):
            raise RequestError(f"The fine-tuning in {self.folder} cannot go on: it is another kind of job. Delete it.")
        return request.in_folder(self.folder)

    def wish(self) -> str:
        """The user's request to the active training run: "pause", "stop" or ""."""
        try:
            return (self.folder / "stop").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def ask_for(self, wish: str) -> None:
        """Ask the active process to pause or stop; the empty text withdraws the request."""
        if wish:
            (self.folder / "stop").write_text(wish, encoding="utf-8")
        else:
            (self.folder / "stop").unlink(missing_ok=True)

    def add_record(self, record: ValidationRecord) -> None:
        """Append a line to the history; a full disk is no reason to end a training, so it is only logged."""
        try:
            with self.history_file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(vars(record)) + "\n")
        except OSError as error:
            logger.warning("The history of the fine-tuning could not be written: %s", error)

    def history(self) -> tuple[ValidationRecord, ...]:
        """All validations in order; steps repeated after an interruption count once."""
        if not self.history_file.is_file():
            return ()
        records: list[ValidationRecord] = []
        for line in self.history_file.read_text(encoding="utf-8").splitlines():
            record = _record(line)
            if record is not None:
                records = [item for item in records if item.step < record.step] + [record]
        return tuple(records)

    def mark_running(self) -> None:
        """Mark this process as active.

        Raises:
            RequestError: if another one is active.
        """
        import psutil

        owner = self.owner()
        if owner is not None and owner != os.getpid():
            raise RequestError(f"This fine-tuning runs already, in the process {owner}. Wait for its end.")
        marker = {"pid": os.getpid(), "started": psutil.Process().create_time()}
        (self.folder / "running.json").write_text(json.dumps(marker), encoding="utf-8")

    def mark_idle(self) -> None:
        """Mark the run as inactive."""
        (self.folder / "running.json").unlink(missing_ok=True)

    def owner(self) -> int | None:
        """The live process that is working in the folder, or None."""
        try:
            marker = json.loads((self.folder / "running.json").read_text(encoding="utf-8"))
            return marker["pid"] if _is_alive(marker["pid"], marker["started"]) else None
        except (OSError, ValueError, KeyError):
            return None

    def remove(self) -> None:
        """Delete the folder with all of its content, including trained weights."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_after_success(self) -> None:
        """Delete the folder; leftovers that the system still holds are deleted by the next `unfinished_runs`."""
        self.done_file.touch()
        self.remove()


def unfinished_runs(parent: Path) -> list[UnfinishedRun]:
    """Inactive training runs that can be continued, newest first; useless leftovers are deleted."""
    found = []
    for folder in sorted(parent.glob(f"{PREFIX}*"), reverse=True):
        training_run = TrainingRun(folder)
        if training_run.owner() is not None:
            continue
        if training_run.done_file.exists() or _is_abandoned(training_run):
            training_run.remove()
        elif training_run.request_file.is_file():
            found += _unfinished(training_run)
    return found


def new_model_id(title: str, taken: set[str]) -> str:
    """A short ID that no model has yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "my-model"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _is_alive(pid: int, started: float) -> bool:
    """Whether it is still the same process; without psutil, which every worker needs, none can be active."""
    try:
        import psutil
    except ModuleNotFoundError:
        return False
    try:
        process = psutil.Process(pid)
        found: bool = process.status() != psutil.STATUS_ZOMBIE and process.create_time() == started
        return found
    except psutil.Error:
        return False


def _unfinished(training_run: TrainingRun) -> list[UnfinishedRun]:
    try:
        request = training_run.read_request()
    except HSAMSegmentError as error:
        logger.warning("%s", error)
        return []
    return [UnfinishedRun(request, training_run.history(), training_run.has_state)]


def _is_abandoned(training_run: TrainingRun) -> bool:
    """Whether the program was killed while copying the scene's arrays, long ago."""
    if training_run.request_file.exists():
        return False
    return time.time() - training_run.folder.stat().st_mtime > _ABANDONED_SECONDS


def _record(line: str) -> ValidationRecord | None:
    """A line of the history; None for the truncated last line of a killed process."""
    try:
        data: dict[str, Any] = json.loads(line)
        return ValidationRecord(**data)
    except (ValueError, TypeError):
        return None
