"""Devices that really compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from HSAMSegmentLib.errors import DeviceError, RequestError
from HSAMSegmentLib.runtime import devices


def test_the_cpu_passes_its_test_and_comes_last():
    probes = devices.list_devices()
    assert probes[-1].name == "cpu"
    assert probes[-1].works
    assert probes[-1].memory_bytes > 0


def test_auto_takes_a_device_that_works():
    assert devices.choose_device("auto").name in [probe.name for probe in devices.list_devices() if probe.works]


def test_an_unknown_device_is_refused_by_name():
    with pytest.raises(DeviceError, match="'tpu' is unknown"):
        devices.choose_device("tpu")


def test_a_missing_device_is_refused_with_a_way_out():
    with pytest.raises(DeviceError, match=r"no device 'cuda:97'.*'auto' or 'cpu'"):
        devices.choose_device("cuda:97")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this computer has a CUDA device")
def test_a_cuda_card_without_kernels_is_said_and_the_cpu_taken(monkeypatch):
    def no_kernel(device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore text")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GeForce GT 710")
    monkeypatch.setattr(devices, "_tiny_run", no_kernel)
    devices._tested.cache_clear()
    try:
        choice = devices.choose_device("auto")
        with pytest.raises(DeviceError, match="no kernel image"):
            devices.choose_device("cuda")
    finally:
        devices._tested.cache_clear()
    assert choice.name == "cpu"
    assert "GeForce GT 710" in choice.notes[0]
    assert "no kernel image" in choice.notes[0]
    assert "CPU is used instead" in choice.notes[1]


def test_a_device_with_wrong_numbers_does_not_pass(monkeypatch):
    real = devices._tiny_network
    results = iter([1.0, 2.0])
    monkeypatch.setattr(devices, "_tiny_network", lambda *parts: real(*parts) * next(results))
    assert devices._tiny_run(torch.device("cpu")) == "its results are wrong"


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_recognized_in_all_its_forms(error):
    assert devices.is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_not_taken_for_it(error):
    assert not devices.is_out_of_memory(error)


def test_a_real_failed_allocation_is_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert devices.is_out_of_memory(caught.value)


@pytest.fixture
def flags(monkeypatch):
    """Sets the instruction sets that the CPU is taken to have."""

    def pretend(*names):
        monkeypatch.delenv(devices.PRECISION_VARIABLE, raising=False)
        monkeypatch.setattr(devices, "_cpu_flags", lambda: frozenset(names))
        devices.native_bfloat16.cache_clear()

    yield pretend
    devices.native_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("names", "dtype", "words"),
    [
        (("avx2", "avx512f", "amx_bf16", "avx512_bf16"), torch.bfloat16, "AMX"),
        (("avx512_bf16",), torch.bfloat16, "AVX-512 BF16"),
        (("bf16", "asimd"), torch.bfloat16, "Arm BF16"),
        (("avx2", "avx512f"), None, "no instructions for bfloat16"),
        ((), None, "no instructions for bfloat16"),
    ],
)
def test_the_precision_follows_from_the_instruction_sets(flags, names, dtype, words):
    flags(*names)
    precision = devices.default_precision("cpu")
    assert precision.dtype == dtype
    assert words in precision.reason


@pytest.mark.parametrize(("wish", "dtype"), [("float32", None), ("bfloat16", torch.bfloat16)])
def test_a_setting_decides_the_precision(flags, monkeypatch, wish, dtype):
    flags("amx_bf16")
    monkeypatch.setenv(devices.PRECISION_VARIABLE, wish)
    devices.native_bfloat16.cache_clear()
    precision = devices.default_precision("cpu")
    assert precision.dtype == dtype
    assert precision.reason == f"{wish}: HSAMSEGMENT_PRECISION asks for it."


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), None)],
)
def test_the_precision_of_a_card_follows_from_its_compute_capability(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    precision = devices.default_precision("cuda:0")
    assert precision.dtype == dtype
    assert f"{capability[0]}.{capability[1]}" in precision.reason


def test_the_flags_of_this_cpu_are_read():
    assert devices._cpu_flags() or not Path("/proc/cpuinfo").exists()


@pytest.mark.parametrize("text", [None, "processor : 0\nmodel name : one that lists nothing\n"])
def test_where_the_instruction_sets_are_not_listed_the_reason_does_not_pretend_to_know(
    flags, monkeypatch, tmp_path, text
):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    read = devices._cpu_flags
    flags()
    monkeypatch.setattr(devices, "_cpu_flags", lambda: read(tmp_path / "cpuinfo"))
    for test in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, test, lambda: False, raising=False)
    precision = devices.default_precision("cpu")
    assert precision.dtype is None
    assert "could not be determined" in precision.reason
    devices.native_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert devices.default_precision("cpu").reason == "bfloat16: this CPU has AMX."


def test_a_misspelled_precision_is_one_clear_error_before_anything_is_computed(monkeypatch):
    monkeypatch.setenv(devices.PRECISION_VARIABLE, "bflot16")
    for ask in (lambda: devices.default_precision("cpu"), lambda: devices.choose_device("auto")):
        with pytest.raises(RequestError, match=r"HSAMSEGMENT_PRECISION is 'bflot16'.*float32 or bfloat16"):
            ask()


def test_at_least_one_thread_is_recommended():
    assert devices.default_threads() >= 1
