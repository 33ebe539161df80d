"""Estimate the memory, disk and time of a fine-tuning before it starts. No torch here.

The measured encoding time per slice on this computer is stored for later fine-tunings.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.models.sizes import cached_bytes_per_view, encoder_weights, encoding_bytes, head_weights
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.runtime.control_groups import free_group_memory
from HSAMSegmentLib.runtime.disk import DISK_RESERVE_BYTES, SECOND_STATE_COPIES, STATE_COPIES, format_bytes
from HSAMSegmentLib.runtime.translation import tr as _
from HSAMSegmentLib.training.loop.budget import ENCODING_SHARE
from HSAMSegmentLib.training.request import SECOND_PLANE_CASES
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary

COMPACT = "compact"
BASE_BYTES = 500e6
"""Python with PyTorch and this program, on a CPU."""
GPU_BASE_BYTES = 800e6
"""CUDA and its libraries on a GPU before the first network: from experience, not measured."""
COPIES_IN_MEMORY = STATE_COPIES + 1
"""Copies of the trained weights at 4 bytes: those of a training state, and the gradients."""
ACTIVATION_BYTES_PER_PIXEL = 1100
"""For one view in a step that also trains the compact encoder."""
CELL_BYTES = 250e3
"""For one cell of a cached embedding in a step of the largest head: measured for H-SAM's with four organs."""
MOST_VIEWS, CACHE_BYTES = 12, 4 << 30
"""As in the feature cache."""
_BATCH = 4

logger = logging.getLogger(__name__)

FILE_NAME = "encoding-paces.json"


@dataclass(frozen=True)
class CostEstimate:
    """Estimated requirements.

    Attributes:
        memory_bytes: RAM, for training on the CPU.
        gpu_bytes: GPU memory, for training on a GPU.
        disk_bytes: upper bound in the scratch folder.
        least_disk_bytes: minimum, with one cached view per slice.
        minutes: as requested, including reading and encoding.
        free_memory_bytes: free RAM, None if unknown.
        free_disk_bytes: free space on the disk of the scratch folder.
        pace: a sentence on the encoding time; empty if it was never measured or nothing is encoded.
    """

    memory_bytes: float
    gpu_bytes: float
    disk_bytes: float
    least_disk_bytes: float
    minutes: float
    free_memory_bytes: float | None
    free_disk_bytes: float
    pace: str = ""

    @property
    def problem(self) -> str:
        """A sentence on what will not fit; empty if everything does."""
        if self.least_disk_bytes > self.free_disk_bytes:
            return _(
                "The scratch folder's disk has only {free} free, about {needed} are needed. Free some space, or choose "
                "another folder (Advanced)."
            ).format(free=format_bytes(self.free_disk_bytes), needed=format_bytes(self.least_disk_bytes))
        return ""

    @property
    def sentence(self) -> str:
        """A short text for the user."""
        memory = _about(self.memory_bytes)
        if self.free_memory_bytes is not None:
            memory = _("{needed} of memory ({free} free)").format(needed=memory, free=_about(self.free_memory_bytes))
        else:
            memory = _("{needed} of memory").format(needed=memory)
        text = _(
            "Needs about {memory}, or {gpu} on a graphics card; up to {disk} of disk; and {minutes:g} min in all, from "
            "reading the scans to the finished model."
        ).format(memory=memory, gpu=_about(self.gpu_bytes), disk=_about(self.disk_bytes), minutes=self.minutes)
        if self.pace:
            text += " " + self.pace
        if self.free_memory_bytes is not None and self.memory_bytes > self.free_memory_bytes:
            text += " " + _("The memory is tight: close other programs, or use fewer scans.")
        return text


@dataclass(frozen=True)
class Footprint:
    """Disk and memory use of a fine-tuning, by part.

    Attributes:
        state_bytes: one training state on disk.
        model_bytes: the finished model on disk.
        feature_bytes: upper bound on cached features; 0 if the encoder is trained.
        least_feature_bytes: one view of each slice.
        network_bytes: weights and everything needed to train them, in memory.
        working_bytes: working memory of a step or of the encoding.
        slice_bytes: the slices in memory.
    """

    state_bytes: int
    model_bytes: int
    feature_bytes: int
    least_feature_bytes: int
    network_bytes: int
    working_bytes: int
    slice_bytes: int


def footprint(cases: Sequence[CaseSummary], architecture: Architecture, *, includes_encoder: bool) -> Footprint:
    """Compute all parts.

    Args:
        cases: training cases.
        architecture: architecture of the network.
        includes_encoder: whether the model's file will hold the encoder.
    """
    encoder, head = encoder_weights(architecture.encoder), head_weights(architecture)
    size, keeps_features = architecture.encoder.image_size, architecture.encoder.name != COMPACT
    learning = head if keeps_features else head + encoder
    across = _slices_across(cases, architecture)
    second = SECOND_STATE_COPIES if across else 0
    working = float(_BATCH * size**2 * ACTIVATION_BYTES_PER_PIXEL)
    if keeps_features:
        step = _BATCH * decoded_cells(size) * CELL_BYTES
        working = max(float(encoding_bytes(architecture.encoder)), step)
    return Footprint(
        state_bytes=4 * (STATE_COPIES + second) * learning,
        model_bytes=(2 if across else 1) * 2 * (head + (encoder if includes_encoder or not keeps_features else 0)),
        feature_bytes=min(CACHE_BYTES, _feature_bytes(cases, architecture, MOST_VIEWS)) if keeps_features else 0,
        least_feature_bytes=_feature_bytes(cases, architecture, 1) if keeps_features else 0,
        network_bytes=4 * ((encoder + head - learning) + (COPIES_IN_MEMORY + second) * learning),
        working_bytes=round(working),
        slice_bytes=3 * across * size**2 + sum(3 * case.slices * size**2 + 8 * math.prod(case.shape) for case in cases),
    )


def _slices_across(cases: Sequence[CaseSummary], architecture: Architecture) -> int:
    """Slices for a second network; 0 without one (see `training.recipe`)."""
    is_measured = architecture.encoder.name == COMPACT and architecture.head == "hsam"
    counts = [case.slices_across for case in cases]
    return sum(counts) if is_measured and len(cases) in SECOND_PLANE_CASES and all(counts) else 0


def _feature_bytes(cases: Sequence[CaseSummary], architecture: Architecture, views: int) -> int:
    """Size of this many views of each training slice, plus the held-out slices once."""
    held = sum(held_out(case.labeled_slices) for case in cases)
    learned = sum(case.slices for case in cases) - held
    return (held + views * learned) * cached_bytes_per_view(architecture.encoder)


def decoded_cells(image_size: int) -> int:
    """Number of embedding cells that a step decodes (see `training.features.token_subset`)."""
    side = image_size // 16
    return min(side, max(16, int(0.375 * side))) ** 2


def held_out(labeled_slices: int) -> int:
    """Number of held-out slices of a case: two blocks of a tenth each (see `training.data.sampling`)."""
    return 2 * max(1, round(0.1 * labeled_slices)) if labeled_slices >= 6 else 0


def estimate(
    cases: Sequence[CaseSummary],
    architecture: Architecture,
    *,
    includes_encoder: bool,
    copied_bytes: int,
    minutes: float,
    scratch: Path,
    encoding_seconds: float | None = None,
) -> CostEstimate:
    """Estimate the requirements.

    Args:
        cases: training cases.
        architecture: architecture of the network.
        includes_encoder: whether the model's file will hold the encoder.
        copied_bytes: size of the data copied from the scene.
        minutes: duration.
        scratch: folder for scratch data; it need not exist yet.
        encoding_seconds: per slice, as measured on this computer; None if unknown.
    """
    parts = footprint(cases, architecture, includes_encoder=includes_encoder)
    loading = 8 * (encoder_weights(architecture.encoder) + head_weights(architecture))
    memory = BASE_BYTES + parts.slice_bytes + max(loading, parts.network_bytes + parts.working_bytes)
    fixed = copied_bytes + 2 * parts.state_bytes  # a new state is written next to the old one
    reserve = DISK_RESERVE_BYTES if parts.feature_bytes else 0
    return CostEstimate(
        memory_bytes=memory,
        gpu_bytes=GPU_BASE_BYTES + parts.network_bytes + parts.working_bytes,
        disk_bytes=fixed + reserve + max(parts.feature_bytes, parts.model_bytes),
        least_disk_bytes=fixed + reserve + max(parts.least_feature_bytes, parts.model_bytes),
        minutes=minutes,
        free_memory_bytes=_free_memory(),
        free_disk_bytes=float(shutil.disk_usage(_existing(scratch)).free),
        pace=_pace(sum(case.slices for case in cases), encoding_seconds, minutes) if parts.feature_bytes else "",
    )


def _pace(slices: int, seconds: float | None, minutes: float) -> str:
    """A sentence on how many slices there is time to encode."""
    if seconds is None:
        return ""
    reached = int(ENCODING_SHARE * 60.0 * minutes / max(seconds, 1e-6))
    if reached >= slices:
        text = _("Encoding the {slices} slices takes {needed:.1f} min of that, as measured the last time.")
        return text.format(slices=slices, needed=slices * seconds / 60.0)
    text = _(
        "Encoding took {seconds:.1f} s for a slice the last time: in this time it learns from about {reached} of "
        "{slices} slices; for all of them, give it {enough} min."
    )
    enough = math.ceil(slices * seconds / 60.0 / ENCODING_SHARE)
    return text.format(seconds=seconds, reached=max(reached, 1), slices=slices, enough=enough)


def _about(count: float) -> str:
    """Format a size with two digits: more would be false precision."""
    step = 10.0 ** max(math.floor(math.log10(max(count, 1.0))) - 1, 0)
    return format_bytes(math.ceil(count / step) * step).replace(".0 ", " ")


def _free_memory() -> float | None:
    """Free RAM; None without psutil, which is installed only before the first job."""
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return min(float(psutil.virtual_memory().available), free_group_memory())


def _existing(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def note_pace(folder: Path, encoder: EncoderSpec, device: str, seconds: float) -> None:
    """Store the measured pace; a full disk is no reason to lose a fine-tuning.

    Args:
        folder: folder of the store.
        encoder: network and size.
        device: as chosen by the user ("auto", "cpu", ...).
        seconds: seconds per slice.
    """
    paces = {**_read(folder), _key(encoder, device): round(seconds, 4)}
    try:
        with atomic_output(folder / FILE_NAME, overwrite=True) as stream:
            stream.write(json.dumps(paces, indent=1).encode())
    except OutputError as error:
        logger.warning("How long an encoding took could not be kept: %s", error)


def known_pace(folder: Path, encoder: EncoderSpec, device: str) -> float | None:
    """Seconds per slice as measured last; None if never measured."""
    seconds = _read(folder).get(_key(encoder, device))
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _key(encoder: EncoderSpec, device: str) -> str:
    options = json.dumps(encoder.options, sort_keys=True) if encoder.options else ""
    return f"{encoder.name} {encoder.image_size} {device} {options}".strip()


def _read(folder: Path) -> dict[str, float]:
    try:
        found = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
