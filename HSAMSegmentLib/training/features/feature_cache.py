"""Features of a frozen encoder for slices and augmented views, computed once and stored in memory-mapped files.

An epoch then costs no more than the head (with LoRA: the adapted blocks and the head). Values are stored as float16,
whose rounding is below the noise that heads get in training. The files are in a private folder that is deleted with the
cache. Leftovers of killed processes are deleted with the next cache, unless a training can be resumed with them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped,unused-ignore]
import torch
from torch import Tensor

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.runtime.atomic_files import atomic_output, explain_write_error
from HSAMSegmentLib.runtime.disk import require_free_space
from HSAMSegmentLib.runtime.tensors import to_array, to_tensor
from HSAMSegmentLib.training.loop.checkpointer import load_state, save_state

PREFIX = "hsamsegment-features-"
DEFAULT_BYTES = 4 << 30
MOST_VIEWS = 12
_OWNER, _JOURNAL, _LABELS = "owner.json", "journal", "labels.npy"
_ABANDONED_SECONDS = 7 * 24 * 3600
_LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True)
class CacheOwner:
    """The training that owns a cache, to find it again after a kill.

    Attributes:
        key: hash of everything that the features depend on.
        state: file of the training state; while it exists, for at most a week, the cache is not deleted as abandoned.
    """

    key: str
    state: Path


def affordable_views(
    slices: int, bytes_per_view: int, *, capacity_bytes: int = DEFAULT_BYTES, most: int = MOST_VIEWS
) -> int:
    """Number of views per slice that fit; at least one, the slice itself.

    Args:
        slices: training slices.
        bytes_per_view: features and labels of one view.
        capacity_bytes: upper bound on all files together.
        most: more views than this help little.
    """
    return int(max(1, min(most, capacity_bytes // max(slices * bytes_per_view, 1))))


class FeatureCache:
    """A fixed number of entries, each with the same feature maps and one label map.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        entries: int,
        feature_shapes: Sequence[tuple[int, ...]],
        label_shape: tuple[int, int],
        *,
        parent: Path | None = None,
        owner: CacheOwner | None = None,
    ) -> None:
        """Reserve the files.

        Args:
            entries: number of entries.
            feature_shapes: shape of each feature map of an entry.
            label_shape: rows and columns of an entry's labels.
            parent: folder to create the private folder in; by default the system's temporary folder.
            owner: the training that may `adopt` the cache after a kill.

        Raises:
            OutputError: if there is too little disk space.
        """
        base = base_folder(parent)
        remove_abandoned(base)
        self.bytes = entries * entry_bytes(feature_shapes, label_shape)
        require_free_space(base, self.bytes, "Caching the encoder's features")
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
        try:
            _write_owner(self.folder, owner)
            self._features = [
                _new_file(self.folder / f"features{number}.npy", np.float16, (entries, *shape))
                for number, shape in enumerate(feature_shapes)
            ]
            self._labels = _new_file(self.folder / _LABELS, np.uint8, (entries, *label_shape))
        except OSError as error:
            self.close()
            raise explain_write_error(error, base / "features") from error

    @classmethod
    def adopt(cls, owner: CacheOwner, parent: Path | None = None) -> tuple[FeatureCache, dict[str, Any]] | None:
        """Take over the cache of a killed process of the same training.

        Returns:
            The cache and the last note of its journal, or None if there is no cache.
        """
        base = base_folder(parent)
        for folder in _abandoned(base):
            if _read_owner(folder).get("key") != owner.key:
                continue
            try:
                journal = load_state(folder / _JOURNAL)
            except CheckpointError:
                continue
            mine = folder.with_name(f"{PREFIX}{os.getpid()}-{folder.name.rpartition('-')[2]}")
            folder.rename(mine)
            return cls._opened(mine, owner), journal
        return None

    @classmethod
    def _opened(cls, folder: Path, owner: CacheOwner) -> FeatureCache:
        cache = cls.__new__(cls)
        cache.folder = folder
        _write_owner(folder, owner)
        count = len(list(folder.glob("features*.npy")))
        cache._features = [np.load(folder / f"features{number}.npy", mmap_mode="r+") for number in range(count)]
        cache._labels = np.load(folder / _LABELS, mmap_mode="r+")
        cache.bytes = sum(array.nbytes for array in (*cache._features, cache._labels))
        return cache

    def __len__(self) -> int:
        return len(self._labels)

    def note(self, journal: dict[str, Any]) -> None:
        """Record how far the cache is filled, for `adopt`.

        Raises:
            OutputError: if the disk is full.
        """
        save_state(self.folder / _JOURNAL, journal)

    def write(self, first: int, features: Sequence[Tensor], labels: Tensor) -> None:
        """Fill the entries from `first` on with features [n, ...] and labels [n, rows, cols]."""
        count = len(labels)
        for file, tensor in zip(self._features, features):
            bounded = tensor.detach().float().clamp(-_LARGEST_FLOAT16, _LARGEST_FLOAT16)
            file[first : first + count] = to_array(bounded).astype(np.float16)
        self._labels[first : first + count] = to_array(labels.to(torch.uint8))

    def read(self, entries: Sequence[int], device: torch.device | str = "cpu") -> tuple[tuple[Tensor, ...], Tensor]:
        """Features float32 [n, ...] and labels int64 [n, rows, cols] of the given entries."""
        index = np.asarray(entries)
        features = tuple(to_tensor(file[index].astype(np.float32), device) for file in self._features)
        return features, to_tensor(self._labels[index], device).long()

    def close(self) -> None:
        """Delete the files; may be called more than once."""
        self._features, self._labels = [], np.zeros((0,))
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def base_folder(parent: Path | None) -> Path:
    """Folder that caches are created in."""
    return Path(parent) if parent else Path(tempfile.gettempdir())


def entry_bytes(feature_shapes: Sequence[tuple[int, ...]], label_shape: tuple[int, int]) -> int:
    """Size of one entry in bytes."""
    return 2 * sum(int(np.prod(shape)) for shape in feature_shapes) + int(np.prod(label_shape))


def remove_abandoned(base: Path) -> None:
    """Delete the folders of ended processes, unless a training can be resumed with them."""
    for folder in _abandoned(base):
        state = _read_owner(folder).get("state", "")
        is_recent = time.time() - folder.stat().st_mtime < _ABANDONED_SECONDS
        if not (state and Path(state).is_file() and is_recent):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(base: Path) -> list[Path]:
    return [folder for folder in sorted(base.glob(f"{PREFIX}*-*")) if not _is_owned(folder)]


def _is_owned(folder: Path) -> bool:
    """Whether the process that made a folder still runs; its process ID may have been reused since."""
    number = folder.name[len(PREFIX) :].split("-")[0]
    if not number.isdigit():
        return True
    try:
        started = psutil.Process(int(number)).create_time()
    except psutil.Error:
        return False
    return bool(abs(started - _read_owner(folder).get("started", started)) < 1.0)


def _write_owner(folder: Path, owner: CacheOwner | None) -> None:
    facts: dict[str, Any] = {"started": psutil.Process().create_time()}
    if owner is not None:
        facts.update(key=owner.key, state=str(owner.state.absolute()))
    with atomic_output(folder / _OWNER, overwrite=True) as stream:
        stream.write(json.dumps(facts).encode())


def _read_owner(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


def _new_file(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A memory-mapped array with reserved disk space: a disk that fills up later would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array
