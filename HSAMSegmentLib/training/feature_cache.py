"""What a frozen encoder makes of slices and of augmented views of them: computed once, kept in memory-mapped files.

An epoch then costs the head alone (with LoRA: the adapted blocks and the head). Numbers are kept as float16, which is
finer than the noise that the heads get in training. The files lie in one private folder that goes away with the cache;
what a killed process left behind goes away with the next cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import psutil
import torch
from torch import Tensor

from HSAMSegmentLib.checkpoints.files import require_free_space
from HSAMSegmentLib.inference.arrays import to_array, to_tensor
from HSAMSegmentLib.output import explain_write_error

PREFIX = "hsamsegment-features-"
DEFAULT_BYTES = 4 << 30
_LARGEST_FLOAT16 = 65504.0


def affordable_views(slices: int, bytes_per_view: int, *, capacity_bytes: int = DEFAULT_BYTES, most: int = 12) -> int:
    """How many views of every slice fit; at least one, the slice itself.

    Args:
        slices: that are taught from.
        bytes_per_view: features and labels of one view.
        capacity_bytes: bound on the files together.
        most: more than these bring little.
    """
    return int(max(1, min(most, capacity_bytes // max(slices * bytes_per_view, 1))))


class FeatureCache:
    """Fixed number of entries, each with the same few feature maps and one label map.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        entries: int,
        feature_shapes: Sequence[tuple[int, ...]],
        label_shape: tuple[int, int],
        *,
        parent: Path | None = None,
    ) -> None:
        """Reserve the files.

        Args:
            entries: number of entries.
            feature_shapes: shape of each feature map of an entry.
            label_shape: rows and columns of an entry's labels.
            parent: folder in which the private folder is made, by default the system's for temporary files.

        Raises:
            OutputError: if the disk has too little space.
        """
        base = Path(parent) if parent else Path(tempfile.gettempdir())
        remove_abandoned(base)
        self.bytes = entries * entry_bytes(feature_shapes, label_shape)
        require_free_space(base, self.bytes, "Keeping the encoder's features")
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
        try:
            self._features = [
                self._file(f"features{number}", np.float16, (entries, *shape))
                for number, shape in enumerate(feature_shapes)
            ]
            self._labels = self._file("labels", np.uint8, (entries, *label_shape))
        except OSError as error:
            self.close()
            raise explain_write_error(error, base / "features") from error

    def __len__(self) -> int:
        return len(self._labels)

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
        """Remove the files; may be called more than once."""
        self._features, self._labels = [], np.zeros((0,))
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        return np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)


def entry_bytes(feature_shapes: Sequence[tuple[int, ...]], label_shape: tuple[int, int]) -> int:
    """Bytes of one entry."""
    return 2 * sum(int(np.prod(shape)) for shape in feature_shapes) + int(np.prod(label_shape))


def remove_abandoned(base: Path) -> None:
    """Remove the folders of processes that are gone."""
    for folder in base.glob(f"{PREFIX}*-*"):
        owner = folder.name[len(PREFIX) :].split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
