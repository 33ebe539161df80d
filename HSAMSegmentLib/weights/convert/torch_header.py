"""Read names and shapes of the tensors in a PyTorch file without torch and without executing anything in it.

A `.pth` file is a pickle, and a pickle is a program. This unpickler allows only the few names that plain weights need,
each replaced by a stand-in that builds a description; any other name is rejected before lookup. So files of any size
are recognized in milliseconds, even in Slicer before torch is installed.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.weights.file_kind import MAX_PICKLE_BYTES, TORCH_ZIP, file_kind

MAX_PICKLE_STEPS = 500_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype name of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Storage:
    """A block of numbers in the file: its location, size and type."""

    key: str
    count: int
    dtype: str


class _StandIn:
    """Replaces a name in the pickle; calling it only builds a description."""

    __slots__ = ("_build", "name")

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self.name = name
        self._build = build

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)


class _LimitedStream:
    """A prefix of a file with a limited length, so that a pickle cannot make us read without end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    @property
    def _left(self) -> int:
        return MAX_PICKLE_BYTES - self._stream.tell()

    def _require_more(self) -> None:
        if self._left <= 0:
            raise ValueError(f"it is longer than {format_bytes(MAX_PICKLE_BYTES)}")

    def read(self, count: int) -> bytes:
        """Read like a file."""
        data = self._stream.read(min(count, self._left))
        self._require_more()
        return data

    def readline(self) -> bytes:
        """Read a line like a file."""
        data = self._stream.readline(self._left)
        self._require_more()
        return data

    def tell(self) -> int:
        """Current position."""
        return self._stream.tell()

    def seek(self, position: int) -> None:
        """Go to a position from `tell`."""
        self._stream.seek(position)


class _UnsafeNameError(Exception):
    """The pickle asks for a name that plain weights do not need."""


def _describe_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> TensorInfo:
    """Stand-in for torch's tensor constructor; rejects tensors larger than their storage."""
    shape = tuple(int(n) for n in size)
    if len(stride) != len(shape) or offset < 0 or min(shape, default=0) < 0 or min(stride, default=0) < 0:
        raise ValueError("a tensor with a negative size")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if prod(shape) > storage.count or (prod(shape) > 0 and last >= storage.count):
        raise ValueError(f"a tensor of {prod(shape)} numbers in a block of {storage.count}")
    return TensorInfo(shape, storage.dtype)


def _known_names() -> dict[tuple[str, str], Any]:
    """All names that a pickle may ask for, with their stand-ins."""
    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _StandIn("tensor", _describe_tensor),
        ("torch._utils", "_rebuild_parameter"): _StandIn("parameter", lambda tensor, *_: tensor),
        ("torch", "Size"): _StandIn("size", tuple),
        ("torch", "device"): _StandIn("device", lambda *parts: ":".join(str(part) for part in parts)),
    }
    known.update({("torch", name): _StandIn(name, tuple) for name in _STORAGES})
    known.update({("torch", name): name for name in _ITEM_BYTES})
    return known


class _DescribingUnpickler(pickle.Unpickler):
    """An unpickler that builds containers, numbers, texts and `TensorInfo`s, and nothing else."""

    def __init__(self, stream: Any, storages: dict[str, _Storage]) -> None:
        super().__init__(stream)
        self._known = _known_names()
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name among the allowed ones."""
        try:
            return self._known[(module, name)]
        except KeyError:
            raise _UnsafeNameError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """Record a block of numbers; `pid` is ("storage", type, key, location, count, ...)."""
        kind, storage_type, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(storage_type, _StandIn) or storage_type.name not in _STORAGES:
            raise ValueError("a block of numbers of an unknown type")
        storage = _Storage(str(key), int(count), _STORAGES[storage_type.name])
        self._storages[storage.key] = storage
        return storage


def _unpickle(stream: Any, storages: dict[str, _Storage]) -> Any:
    """Read one pickle from a limited stream after checking its opcodes; `storages` collects its blocks."""
    start = stream.tell()
    _check_steps(stream)
    stream.seek(start)
    return _DescribingUnpickler(stream, storages).load()


def _check_steps(stream: Any) -> None:
    """Reject a pickle that would exhaust memory: its memo has a place for every number up to the highest used."""
    steps = 0
    for operation, argument, _ in pickletools.genops(stream):
        steps += 1
        if steps > MAX_PICKLE_STEPS:
            raise ValueError(f"it takes more than {MAX_PICKLE_STEPS} steps")
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > steps:
            raise ValueError(f"it numbers an object {argument} and has {steps} so far")


def read_torch_header(path: Path) -> Any:
    """Read the structure of a `.pth` or `.pt` file with `TensorInfo`s in place of tensors.

    Raises:
        CheckpointError: if it is not a PyTorch file, is truncated, or holds anything but plain data.
    """
    path = Path(path)
    kind = file_kind(path)
    storages: dict[str, _Storage] = {}
    try:
        content = _read_zip(path, storages) if kind == TORCH_ZIP else _read_legacy(path, storages)
    except _UnsafeNameError as error:
        raise CheckpointError(
            f"{path.name} was refused: it contains '{error}', which is program code and not weights. Nothing in it "
            "was run. Ask for a file with plain weights (a state dict) or a bundle (.safetensors)."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise any exception
        raise CheckpointError(
            f"{path.name} is damaged or no file of weights (its table of contents cannot be read: {error})."
        ) from error
    return content


def _read_zip(path: Path, storages: dict[str, _Storage]) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}
        pickle_name = next(name for name in entries if name.rsplit("/", 1)[-1] == "data.pkl")
        content = _unpickle(BytesIO(archive.read(pickle_name)), storages)
    folder = pickle_name[: -len("data.pkl")] + "data/"
    for storage in storages.values():
        present = entries.get(folder + storage.key, -1)
        if present < storage.count * _ITEM_BYTES[storage.dtype]:
            raise CheckpointError(f"{path.name} is incomplete: a part of its numbers is missing. Copy it again.")
    return content


def _read_legacy(path: Path, storages: dict[str, _Storage]) -> Any:
    """Read the format before PyTorch 1.6: magic number, protocol, system, structure, keys, then the numbers."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        stream = _LimitedStream(file)
        if _unpickle(stream, {}) != _LEGACY_MAGIC:
            raise CheckpointError(f"{path.name} is a pickle, but no file of weights made by PyTorch.")
        for _ in ("protocol", "system"):
            _unpickle(stream, {})
        content = _unpickle(stream, storages)
        _unpickle(stream, {})
        start = file.tell()
    # Each block of numbers follows its length, stored in eight bytes.
    needed = start + sum(8 + block.count * _ITEM_BYTES[block.dtype] for block in storages.values())
    if size < needed:
        raise CheckpointError(
            f"{path.name} is truncated: it has {format_bytes(size)} of {format_bytes(needed)}. "
            "Download or copy it again."
        )
    return content
