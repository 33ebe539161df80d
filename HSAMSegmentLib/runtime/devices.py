"""Detect devices that really work, their memory, and their precision.

A device counts only if it passes a tiny real computation: CUDA reports itself available on cards without kernels in the
installed torch, and drivers can be older than the library.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil
import torch

from HSAMSegmentLib.errors import DeviceError, RequestError
from HSAMSegmentLib.runtime.control_groups import free_group_memory
from HSAMSegmentLib.runtime.threads import FreeCores, requested_threads

logger = logging.getLogger(__name__)

PRECISION_VARIABLE = "HSAMSEGMENT_PRECISION"

_PRECISION_SETTINGS = {"": "", "auto": "", "full": "float32", "float32": "float32", "bfloat16": "bfloat16"}
_BFLOAT16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "Arm BF16"}


@dataclass(frozen=True)
class DeviceProbe:
    """Result of a tiny real computation on a device.

    Attributes:
        name: "cpu", "cuda:0", "mps".
        title: name of the hardware, for users.
        works: whether the results were correct.
        sentence: what a user should know about it.
        memory_bytes: free memory, 0 if it does not work.
    """

    name: str
    title: str
    works: bool
    sentence: str
    memory_bytes: int = 0


@dataclass(frozen=True)
class DeviceChoice:
    """The device to use.

    Attributes:
        name: "cpu", "cuda:0", "mps".
        title: name of the hardware.
        notes: why it is not the expected one; sentences for the warnings of the result.
    """

    name: str
    title: str
    notes: tuple[str, ...] = ()


def choose_device(wanted: str = "auto") -> DeviceChoice:
    """Choose the device for a job.

    "auto" takes the first CUDA device that works, else MPS, else the CPU, and notes accelerators that are present but
    fail their test.

    Raises:
        DeviceError: if an explicitly named device is unknown, missing or fails its test.
        RequestError: if HSAMSEGMENT_PRECISION is misspelled, before anything is computed.
    """
    precision_setting()
    if wanted == "auto":
        return _best_device()
    name = _full_name(wanted)
    probe = probe_device(name)
    if not probe.works:
        raise DeviceError(f"{probe.sentence} Choose 'auto' or 'cpu'.")
    return DeviceChoice(name, probe.title)


def list_devices() -> tuple[DeviceProbe, ...]:
    """Probe every device of this computer, the CPU last."""
    return tuple(probe_device(name) for name in (*_accelerators(), "cpu"))


@lru_cache
def _tested(name: str) -> str:
    """Run convolution, matrix product and attention on a device; return the problem, or "" if results are correct."""
    try:
        return _tiny_run(torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        logger.info("Device %s failed its test: %s", name, error)
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def probe_device(name: str) -> DeviceProbe:
    """Test a device with a tiny real computation; the result is cached for the life of the process."""
    title = _title(name)
    if name != "cpu" and name not in _accelerators():
        return DeviceProbe(name, title, False, f"There is no device '{name}' on this computer.")
    problem = _tested(name)
    if problem:
        sentence = f"{title} ({name}) is there but fails a small test run ({problem}), so it is not used."
        return DeviceProbe(name, title, False, sentence)
    free = free_memory(name)
    return DeviceProbe(name, title, True, f"{title} ({name}) works; {free / 2**30:.1f} GiB of memory are free.", free)


def free_memory(name: str) -> int:
    """Bytes that a job can still allocate on a device, including torch's caches."""
    device = torch.device(name)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "mps":
        recommended = getattr(torch.mps, "recommended_max_memory", None)
        if recommended is not None:
            return max(int(recommended() - torch.mps.current_allocated_memory()), 0)
    return int(min(psutil.virtual_memory().available, free_group_memory()))


def default_threads(free_cores: FreeCores | None = None) -> int:
    """Default number of CPU threads: the user's OpenMP setting, else the cores that are free now.

    Args:
        free_cores: a measurement that began earlier; a new one takes a moment.
    """
    return requested_threads() or (free_cores or FreeCores()).count()


@dataclass(frozen=True)
class Precision:
    """Default precision of a device.

    Attributes:
        dtype: half-precision type, None for float32.
        reason: why, a sentence for the user.
    """

    dtype: torch.dtype | None
    reason: str


def default_precision(name: str) -> Precision:
    """The precision that "auto" stands for on a device; it depends on the hardware only, so that results repeat.

    Raises:
        RequestError: if HSAMSEGMENT_PRECISION, which takes precedence on CPUs, is misspelled.
    """
    device = torch.device(name)
    if device.type == "cpu":
        return _cpu_precision()
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return Precision(torch.bfloat16, f"bfloat16: the card has compute capability {major}.{minor}.")
        if major == 7:
            return Precision(torch.float16, f"float16: the card has compute capability {major}.{minor}.")
        return Precision(None, f"float32: the card has compute capability {major}.{minor}, below 7.0.")
    return Precision(None, f"float32: half precision was not measured on {_title(name)}.")


def half_precision(name: str) -> torch.dtype:
    """Half-precision type of a device: bfloat16 on CPUs and recent cards, float16 elsewhere."""
    device = torch.device(name)
    if device.type == "cpu" or (device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8):
        return torch.bfloat16
    return torch.float16


def precision_setting() -> str:
    """HSAMSEGMENT_PRECISION, which applies to CPUs: "float32", "bfloat16", or "" to decide by the hardware.

    Raises:
        RequestError: if it is anything else.
    """
    wish = os.environ.get(PRECISION_VARIABLE, "").strip()
    if wish.lower() not in _PRECISION_SETTINGS:
        raise RequestError(
            f"The setting {PRECISION_VARIABLE} is '{wish}', which is unknown. Set it to float32 or bfloat16, or remove "
            "it to let the hardware decide."
        )
    return _PRECISION_SETTINGS[wish.lower()]


def _cpu_precision() -> Precision:
    wish = precision_setting()
    if wish:
        return Precision(torch.bfloat16 if wish == "bfloat16" else None, f"{wish}: {PRECISION_VARIABLE} asks for it.")
    instructions = native_bfloat16()
    if instructions is None:
        return Precision(
            None,
            "float32: whether this CPU computes in bfloat16 could not be determined; if it does, set "
            f"{PRECISION_VARIABLE}=bfloat16.",
        )
    if instructions:
        return Precision(torch.bfloat16, f"bfloat16: this CPU has {instructions}.")
    return Precision(
        None, f"float32: this CPU has no instructions for bfloat16 ({', '.join(_BFLOAT16_FLAGS.values())})."
    )


@lru_cache
def native_bfloat16() -> str | None:
    """This CPU's instructions for bfloat16 arithmetic; "" if it has none, None if unknown."""
    flags = _cpu_flags()
    if flags is None:
        return None
    return next((title for flag, title in _BFLOAT16_FLAGS.items() if flag in flags), "")


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str] | None:
    """Names of instruction sets, as listed by Linux; None if unknown.

    Without such a list, torch reports two of them, but its "no" may only mean that it cannot tell.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    listed = re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.M)))
    if listed:
        return frozenset(listed)
    tests = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return frozenset(flag for flag, test in tests.items() if getattr(torch.cpu, test, bool)()) or None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory on a device, as CUDA, MPS and CPU report it."""
    kinds = tuple(
        kind for kind in (getattr(torch, "OutOfMemoryError", None), torch.cuda.OutOfMemoryError, MemoryError) if kind
    )
    if isinstance(error, kinds):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return any(part in text for part in ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed"))


def release_memory(name: str) -> None:
    """Return torch's caches to the device."""
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def synchronize(name: str) -> None:
    """Wait until a device has finished its queued work."""
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _best_device() -> DeviceChoice:
    notes: list[str] = []
    for name in _accelerators():
        probe = probe_device(name)
        if probe.works:
            return DeviceChoice(name, probe.title, tuple(notes))
        notes.append(probe.sentence)
    if notes:
        notes.append("The CPU is used instead; it is slower.")
    return DeviceChoice("cpu", _title("cpu"), tuple(notes))


def _accelerators() -> tuple[str, ...]:
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        names.append("mps")
    return tuple(names)


def _full_name(wanted: str) -> str:
    if re.fullmatch(r"cpu|mps|cuda(:\d+)?", wanted) is None:
        raise DeviceError(f"The device '{wanted}' is unknown. Choose 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    if wanted == "cuda":
        return "cuda:0"
    return wanted


def _title(name: str) -> str:
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        present = torch.cuda.is_available() and index < torch.cuda.device_count()
        return torch.cuda.get_device_name(index) if present else "The CUDA device"
    return {"cpu": "The CPU", "mps": "The Apple GPU"}.get(name, name)


def _tiny_run(device: torch.device) -> str:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((1, 3, 16, 16), generator=generator)
    kernel = torch.rand((4, 3, 3, 3), generator=generator)
    matrix = torch.rand((8, 8), generator=generator)
    expected = _tiny_network(image, kernel, matrix)
    actual = _tiny_network(image.to(device), kernel.to(device), matrix.to(device)).cpu()
    if not torch.allclose(actual, expected, rtol=1e-2, atol=1e-2):
        return "its results are wrong"
    return ""


def _tiny_network(image: torch.Tensor, kernel: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    features = torch.nn.functional.conv2d(image, kernel, padding=1) / 10.0
    tokens = features.reshape(1, 4, 32, 8) @ matrix / 4.0
    attended = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    return torch.nn.functional.interpolate(attended, size=(16, 16), mode="bilinear").sum(dim=1)
