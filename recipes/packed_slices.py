"""Pack the preprocessed slices of a task into one small file, to train on a machine without the scans.

The file is a NumPy archive (.npz) with LZMA compression. Images are uint8 at the training resolution or, if a scan has
fewer pixels, at its own. Values outside [0, 1] from interpolation are clipped, as in augmentation. If necessary,
intensities are rounded to fewer levels until the file is small enough: the noise of a CT scan is larger than the steps
of 64 levels over 400 HU.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.images.orientation import slice_frame
from HSAMSegmentLib.preprocess.intensity import scale_intensity
from HSAMSegmentLib.preprocess.network_input import SliceFraming
from HSAMSegmentLib.runtime.atomic_files import atomic_output
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.slice_bank import SliceBank, build_slice_bank
from recipes.builtin_tasks import BuiltinTask

LIMIT_BYTES = 60 << 20
_BITS = (8, 7, 6, 5)
_CHUNK = 32
_SLACK_BYTES = 8 << 20
"""How far the first scans may exceed their share of the limit."""
_FACTS = "facts.json"


@dataclass(frozen=True)
class ScanSlices:
    """The packed slices of one scan.

    Attributes:
        images: uint8 [n, rows, columns].
        reference: labels uint8 [n, rows, columns] on the grid of the scan.
        facts: JSON values: name, spacing, distance of the neighboring slices, whether images are framed.
    """

    images: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    facts: dict[str, Any]


def scan_slices(case: Case, task: BuiltinTask) -> ScanSlices:
    """Extract and scale the slices of a scan, framing them unless the scan has fewer pixels.

    Args:
        case: case from `task_data.dataset_case`.
        task: the task, for which each slice is one network input.
    """
    bank = build_slice_bank(case, slices=task.slices, intensity=task.intensity, image_size=task.image_size)
    rows, columns = bank.reference.shape[1:]
    is_framed = bool(rows * columns >= task.image_size**2)
    if is_framed:
        images = bank.images[:, 0].float().numpy()
    else:
        frame = slice_frame(case.volume.geometry, task.slices.plane)
        images = frame.to_stack(scale_intensity(case.volume, task.intensity))
    facts = {
        "name": bank.name,
        "is_framed": is_framed,
        "context_step": bank.context_step,
        "slice_spacing_mm": bank.slice_spacing_mm,
        "pixel_spacing_mm": list(bank.pixel_spacing_mm),
    }
    return ScanSlices(np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8), bank.reference.numpy(), facts)


def write_pack(path: Path, task: BuiltinTask, scans: Sequence[ScanSlices], *, limit_bytes: int = LIMIT_BYTES) -> int:
    """Pack the slices of a task.

    Args:
        path: output file; an older one is replaced.
        task: the task.
        scans: all training and validation scans.
        limit_bytes: upper bound on the size.

    Returns:
        The number of intensity bits that were kept.

    Raises:
        TrainingError: if the file would be too large even with 32 levels.
        OutputError: if it cannot be written.
    """
    for bits in _BITS:
        content = _packed(task, scans, bits, limit_bytes)
        if content is not None:
            with atomic_output(path, overwrite=True) as stream:
                stream.write(content)
            return bits
    raise TrainingError(f"The slices of {task.id} do not fit into {limit_bytes / (1 << 20):.0f} MiB.")


def read_pack(path: Path, task: BuiltinTask, device: torch.device | str = "cpu") -> tuple[SliceBank, ...]:
    """Read a packed file.

    Args:
        path: the packed file.
        task: the task that it was packed for.
        device: device that upsamples the images.

    Raises:
        TrainingError: if the file cannot be read, or was packed for another task or other slices.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(_FACTS))
            if facts["task"] != _task_facts(task):
                raise TrainingError(f"{path.name} was packed for another task or with other settings. Pack it again.")
            return tuple(_read_bank(archive, task, number, item, device) for number, item in enumerate(facts["scans"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path.name} cannot be read ({type(error).__name__}). Pack it again.") from error


def _task_facts(task: BuiltinTask) -> dict[str, Any]:
    """Parameters that packed slices depend on."""
    return {
        "id": task.id,
        "labels": list(task.labels),
        "image_size": task.image_size,
        "slices": repr(task.slices),
        "intensity": repr(task.intensity),
    }


def _packed(task: BuiltinTask, scans: Sequence[ScanSlices], bits: int, limit_bytes: int) -> bytes | None:
    """The content of the file; None if it is too large."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        facts = {"task": _task_facts(task), "bits": bits, "scans": [scan.facts for scan in scans]}
        archive.writestr(_FACTS, json.dumps(facts))
        for number, scan in enumerate(scans):
            archive.writestr(f"{number}/images.npy", _npy(_quantized(scan.images, bits)))
            archive.writestr(f"{number}/reference.npy", _npy(scan.reference))
            if stream.tell() > limit_bytes * (number + 1) / len(scans) + _SLACK_BYTES:
                return None
    content = stream.getvalue()
    return content if len(content) <= limit_bytes else None


def _quantized(images: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Quantized to 2^bits levels, spread over 0..255."""
    levels = (1 << bits) - 1
    table = np.rint(np.rint(np.arange(256) * (levels / 255.0)) * (255.0 / levels)).astype(np.uint8)
    return np.asarray(table[images])


def _npy(array: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _read_bank(
    archive: zipfile.ZipFile, task: BuiltinTask, number: int, facts: dict[str, Any], device: torch.device | str
) -> SliceBank:
    images, reference = (
        torch.from_numpy(np.load(io.BytesIO(archive.read(f"{number}/{name}.npy")), allow_pickle=False))
        for name in ("images", "reference")
    )
    spacing = (float(facts["pixel_spacing_mm"][0]), float(facts["pixel_spacing_mm"][1]))
    shape = (int(reference.shape[1]), int(reference.shape[2]))
    framing = SliceFraming(task.slices, image_size=task.image_size, slice_shape=shape, pixel_spacing_mm=spacing)
    if facts["is_framed"]:
        framed = images[:, None]
    else:
        framed = torch.cat([_framed(framing, part, device) for part in torch.split(images, _CHUNK)])
    return SliceBank(
        name=facts["name"],
        images=framed,
        labels=torch.cat([framing.labels(part) for part in torch.split(reference, _CHUNK)]).contiguous(),
        reference=reference,
        framing=framing,
        context_step=int(facts["context_step"]),
        labeled=np.ones(len(reference), dtype=bool),
        slice_spacing_mm=float(facts["slice_spacing_mm"]),
        pixel_spacing_mm=spacing,
    )


def _framed(framing: SliceFraming, images: Tensor, device: torch.device | str) -> Tensor:
    framed = framing.images(images.to(device).float())
    return framed.clamp(0, 255).round().to(torch.uint8).cpu()
