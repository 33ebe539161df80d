"""Bundles: one `.safetensors` file per model, with its tensors and, in the metadata, its manifest.

Writing a bundle and reading its manifest need no package beyond those of Slicer, so that models can be listed before
anything is installed. This module writes the file tensor by tensor: a large network is never held twice in memory, and
disk errors are reported as such. Tensors are read by the safetensors library, which also verifies the writer in the
tests.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HSAMSegmentLib.errors import CheckpointError
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder
from HSAMSegmentLib.runtime.disk import copy_stream, require_free_space
from HSAMSegmentLib.weights.file_kind import SAFETENSORS, file_kind, read_safetensors_header
from HSAMSegmentLib.weights.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor, nn

BUNDLE_SUFFIX = ".safetensors"
MANIFEST_KEY = "hsamsegment.manifest"

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_CONVERSIONS = {"float32": "float", "float16": "half", "bfloat16": "bfloat16"}
"""Methods of a torch tensor, since torch may not be installed when this module is imported."""


def _ignore_piece(written_bytes: int) -> None:
    """Do nothing between two tensors: the default of `save_bundle`."""


def save_bundle(
    path: Path | str,
    network_or_tensors: nn.Module | Mapping[str, Any],
    manifest: Manifest,
    overwrite: bool = False,
    *,
    dtype: str | None = None,
    between_pieces: Callable[[int], None] = _ignore_piece,
) -> Path:
    """Save a model to one file, atomically.

    Args:
        path: file name; `.safetensors` is the convention and is appended if there is no suffix.
        network_or_tensors: a network (its whole state dict is saved; see `loading.bundle_tensors` for omitting a shared
            encoder) or a mapping from names to torch tensors or numpy arrays.
        manifest: manifest of the bundle.
        overwrite: replace an existing file.
        dtype: "float32", "float16" or "bfloat16" to convert all floating-point tensors; None keeps their types.
        between_pieces: called before each tensor with its size in bytes; may raise to stop (cancel).

    Returns:
        The path of the file.

    Raises:
        OutputError: if the file exists and may not be overwritten, or cannot be written (permissions, full disk).
    """
    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(BUNDLE_SUFFIX)
    state = network_or_tensors.state_dict() if hasattr(network_or_tensors, "state_dict") else network_or_tensors
    tensors = {name: _as_type(tensor, dtype) for name, tensor in state.items()}
    header, order = _header(tensors, {MANIFEST_KEY: manifest.to_json()})
    make_folder(path.parent)
    total = len(header) + sum(_byte_count(tensor) for tensor in tensors.values())
    require_free_space(path.parent, total, f"Writing {path.name}")
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(header)
        for name in order:
            between_pieces(_byte_count(tensors[name]))
            stream.write(_bytes_of(tensors[name]))
    return path


def _dtype_name(tensor: Any) -> str:
    """Name of the dtype of a torch tensor ("torch.float32") or numpy array ("float32")."""
    return str(tensor.dtype).replace("torch.", "")


def _as_type(tensor: Any, dtype: str | None) -> Any:
    """Convert a tensor to the dtype it is stored in; integers are left unchanged."""
    if dtype is None or not _dtype_name(tensor).startswith(("float", "bfloat")) or _dtype_name(tensor) == dtype:
        return tensor
    if hasattr(tensor, "data_ptr"):
        return getattr(tensor.detach(), _CONVERSIONS[dtype])()
    return tensor.astype(dtype)


def _byte_count(tensor: Any) -> int:
    count: int = prod(tensor.shape) * int(tensor.dtype.itemsize)
    return count


def _bytes_of(tensor: Any) -> bytes:
    """Bytes in C order, little-endian, without torch's numpy bridge, which old torch lacks under NumPy 2."""
    if not hasattr(tensor, "data_ptr"):
        found: bytes = tensor.tobytes()
        return found
    tensor = tensor.detach().cpu().contiguous()
    return ctypes.string_at(tensor.data_ptr(), _byte_count(tensor)) if tensor.numel() else b""


def _header(tensors: Mapping[str, Any], metadata: dict[str, str]) -> tuple[bytes, list[str]]:
    """The safetensors header and the order of the tensors after it (wide types first, so all are aligned)."""
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    table: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name in order:
        end = offset + _byte_count(tensors[name])
        shape = [int(n) for n in tensors[name].shape]
        table[name] = {"dtype": _CODES[_dtype_name(tensors[name])], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    return _packed_header(table), order


def _packed_header(table: dict[str, Any]) -> bytes:
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_manifest(path: Path | str) -> Manifest:
    """Read the manifest of a bundle from the header of the file.

    Raises:
        CheckpointError: if the file is not a bundle, is truncated, or was made by a newer version.
    """
    path = Path(path)
    text = _header_of(path).get("__metadata__", {}).get(MANIFEST_KEY)
    if not isinstance(text, str):
        raise CheckpointError(
            f"{path.name} holds tensors, but no model description: it was not made by HSAMSegment. Export the model "
            "again from there, or import the original file of weights."
        )
    return Manifest.from_json(text)


def copy_with_manifest(
    source: Path, target: Path, manifest: Manifest, overwrite: bool, between_chunks: Callable[[], None]
) -> str:
    """Copy a bundle with another manifest and unchanged tensors; return the SHA-256 of the copy.

    Raises:
        CheckpointError: if the source is not a bundle.
        OutputError: if the target exists and may not be overwritten, or cannot be written.
    """
    table = _header_of(source)
    table["__metadata__"] = {**table.get("__metadata__", {}), MANIFEST_KEY: manifest.to_json()}
    with open(source, "rb") as stream, atomic_output(target, overwrite=overwrite) as output:
        stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        header = _packed_header(table)
        output.write(header)
        return copy_stream(stream, output, between_chunks, written_before=header)


def read_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of a bundle's tensors from the header of the file.

    Raises:
        CheckpointError: if the file is not a safetensors file or is truncated.
    """
    header = _header_of(Path(path))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read all tensors of a bundle on the CPU, with the dtypes of the file.

    Raises:
        CheckpointError: if the file is not a safetensors file or is truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    _header_of(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged ({error}). Copy it again.") from error


def _header_of(path: Path) -> dict[str, Any]:
    if file_kind(path) != SAFETENSORS:
        raise CheckpointError(f"{path.name} is not a bundle (.safetensors) but a PyTorch file; import it instead.")
    return read_safetensors_header(path)


def require_fit(found: Mapping[str, Any], wanted: Mapping[str, Any], *, file: str, network: str) -> None:
    """Ensure that the tensors of a file are exactly those that a network needs, by name and shape.

    Args:
        found: names to objects with a `shape`: the content of the file.
        wanted: names to objects with a `shape`: the needs of the network.
        file: name of the file in messages.
        network: name of the network in messages.

    Raises:
        CheckpointError: naming what is missing or unexpected, and both sides of differing shapes.
    """
    complaints = list(_complaints(found, wanted))
    if complaints:
        raise CheckpointError(f"{file} does not fit {network}: {'; '.join(complaints)}.")


def _complaints(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    both = [name for name in wanted if name in found]
    differing = [name for name in both if tuple(found[name].shape) != tuple(wanted[name].shape)]
    if missing:
        yield f"the file lacks {_some(missing)}"
    if unexpected:
        yield f"the network has no {_some(unexpected)}"
    if differing:
        pairs = [
            f"{name} is {list(found[name].shape)} in the file and {list(wanted[name].shape)} in the network"
            for name in differing
        ]
        yield _some(pairs)


def _some(names: list[str], most: int = 3) -> str:
    """The first few of many names, and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
