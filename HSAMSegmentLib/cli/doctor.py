"""`hsam-segment doctor`: check whether this computer is ready, and what to do if it is not."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from HSAMSegmentLib import __version__
from HSAMSegmentLib.cli.console import Console
from HSAMSegmentLib.errors import DeviceError, HSAMSegmentError, ModelNotFoundError, RequestError
from HSAMSegmentLib.runtime.control_groups import free_group_memory
from HSAMSegmentLib.runtime.disk import format_bytes
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.runtime.threads import priority_sentence, spin_sentence, usable_cores
from HSAMSegmentLib.weights.catalog import ENCODER, MODEL
from HSAMSegmentLib.weights.store import Store
from HSAMSegmentLib.weights.store_entries import BROKEN

MODELS_CHECK = "models"
PACKAGES = ("numpy", "scipy", "SimpleITK", "pydicom", "safetensors", "matplotlib", "psutil", "tqdm")
COMFORTABLE_DISK_BYTES = 2 * 10**9
COMFORTABLE_MEMORY_BYTES = 4 * 10**9
_WRITTEN_MB = 16
_COMFORTABLE_MB_PER_SECOND = 20.0


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        name: what was checked.
        ok: whether it passed.
        finding: what was found.
        advice: what to do; empty if nothing.
        essential: whether segmentation is impossible without it.
    """

    name: str
    ok: bool
    finding: str
    advice: str = ""
    essential: bool = False


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Run and print all checks; the exit code says whether this computer can segment.

    Returns:
        0 if it can, 5 if only a ready model is missing, 7 if packages, torch or a device are.
    """
    checks = []
    with Console(quiet=arguments.quiet or arguments.json) as console:
        for check in examine(self_test=arguments.self_test):
            cancel.raise_if_cancelled()
            checks.append(check)
            console.result(_line(check))
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    in_the_way = {check.name for check in checks if check.essential and not check.ok}
    if in_the_way == {MODELS_CHECK}:
        return ModelNotFoundError.exit_code
    return DeviceError.exit_code if in_the_way else 0


def examine(*, self_test: bool = False) -> Iterator[Check]:
    """Yield all checks, cheap ones first; each runs when it is requested.

    Args:
        self_test: also segment a synthetic scan.
    """
    versions = f"HSAMSegment {__version__}, Python {platform.python_version()}"
    yield Check("program", True, f"{versions}, {platform.platform()}")
    yield _interpreter()
    yield from _packages()
    yield _memory()
    yield from _weights()
    yield from _disks()
    yield from _torch_and_devices()
    if self_test:
        yield _self_test()


def _line(check: Check) -> str:
    advice = f" {check.advice}" if check.advice else ""
    return f"{'ok  ' if check.ok else 'warn'}  {check.name}: {check.finding}{advice}"


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _interpreter() -> Check:
    """The running Python, and whether it is Slicer's own."""
    is_slicer = "slicer" in Path(sys.executable).name.lower() or _has_module("slicer")
    # The package slicer-core, which the test host uses, has a module of this name, too.
    is_slicer = is_slicer and not _has_module("slicer_core")
    return Check("interpreter", True, f"{sys.executable}{', of 3D Slicer' if is_slicer else ''}.")


def _packages() -> Iterator[Check]:
    versions = {name: _version(name) for name in PACKAGES}
    present = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Check("packages", True, present)
    missing = [name for name, version in versions.items() if not version]
    if missing:
        advice = f"Install with: {sys.executable} -m pip install {' '.join(missing)}"
        yield Check("packages", False, f"{', '.join(missing)} not installed.", advice, essential=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _memory() -> Check:
    import psutil

    free = int(min(psutil.virtual_memory().available, free_group_memory()))
    advice = "" if free >= COMFORTABLE_MEMORY_BYTES else "Close other programs, or segment a region with --roi."
    return Check("memory", not advice, f"{format_bytes(free)} free.", advice)


def _disks() -> Iterator[Check]:
    for name, folder in (("store's disk", Store().folder), ("temporary files", Path(tempfile.gettempdir()))):
        existing = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(existing).free
        advice = "" if free >= COMFORTABLE_DISK_BYTES else "Free some space before large downloads or volumes."
        yield Check(name, not advice, f"{format_bytes(free)} free in {folder}.", advice)
    yield _disk_speed()


def _disk_speed() -> Check:
    """Speed of writing temporary files, which fine-tuning and large volumes depend on."""
    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile() as stream:
            started = time.perf_counter()
            for _ in range(_WRITTEN_MB):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
            speed = _WRITTEN_MB / (time.perf_counter() - started)
    except OSError as error:
        return Check(
            "disk speed", False, f"temporary files cannot be written: {error}.", "Set TMPDIR to another folder."
        )
    advice = "" if speed >= _COMFORTABLE_MB_PER_SECOND else "Set TMPDIR to a folder on a faster disk."
    return Check("disk speed", not advice, f"{speed:.0f} MB/s for temporary files.", advice)


def _weights() -> Iterator[Check]:
    store = Store()
    entries = store.models()
    models = [entry for entry in entries if entry.kind == MODEL and entry.is_present]
    missing = {entry.id: store.requirements(entry.id) for entry in models}
    usable = [entry.id for entry in models if not missing[entry.id]]
    advice = "" if usable else "'hsam-segment models' lists what can be fetched."
    yield Check(MODELS_CHECK, bool(usable), f"{', '.join(usable) or 'none'} ready to use.", advice, essential=True)
    for entry in models:
        for encoder in missing[entry.id]:
            yield Check(f"model {entry.id}", False, "its encoder is missing.", store.how_to_get(encoder, entry.title))
    encoders = [entry.id for entry in entries if entry.kind == ENCODER and entry.is_present]
    yield Check("encoders", True, f"{', '.join(encoders) or 'none'}; models that hold their own need none.")
    for entry in entries:
        if entry.status == BROKEN:
            advice = f"Remove it ('hsam-segment models remove {entry.id}') and fetch it again."
            yield Check(f"model {entry.id}", False, entry.problem, advice)


def _torch_and_devices() -> Iterator[Check]:
    version = _version("torch")
    pip = f"{sys.executable} -m pip install"
    if not version:
        yield Check("torch", False, "not installed.", f"Install it with: {pip} torch", essential=True)
        return
    problem = _torch_problem()
    if problem:
        advice = f"Install it again: {pip} --force-reinstall torch"
        yield Check("torch", False, problem, advice, essential=True)
        return
    yield Check("torch", True, version)
    from HSAMSegmentLib.runtime.devices import default_threads, list_devices

    free, cores = default_threads(), usable_cores()
    advice = "" if 2 * free >= cores else "Other programs use the processor; a job takes longer while they do."
    yield Check("threads", not advice, f"{free} of {cores} cores for a job now. {spin_sentence()}", advice)
    yield Check("priority", True, priority_sentence())
    probes = list_devices()
    for probe in probes:
        yield Check(f"device {probe.name}", probe.works, probe.sentence)
        if probe.works:
            yield _precision(probe.name)
    if not any(probe.works for probe in probes):
        yield Check("devices", False, "none passed its test run.", "Install torch again.", essential=True)


def _precision(device: str) -> Check:
    """Precision of a device and why; a misspelled setting prevents every job from starting."""
    from HSAMSegmentLib.runtime.devices import PRECISION_VARIABLE, default_precision, precision_setting

    try:
        precision_setting()
        return Check(f"precision {device}", True, default_precision(device).reason)
    except RequestError as error:
        return Check(f"precision {device}", False, str(error), f"Change {PRECISION_VARIABLE}.", essential=True)


def _self_test() -> Check:
    from HSAMSegmentLib.workflows.context import Context
    from HSAMSegmentLib.workflows.self_test import TOLERANCE, run_self_test

    try:
        result = run_self_test(Context())
    except HSAMSegmentError as error:
        return Check("self-test", False, str(error), "Mend what is named above, and try again.", essential=True)
    finding = (
        f"{result.model_id} on {result.device} in {result.seconds:.1f} s: Dice differs by at most "
        f"{result.largest_difference:.3f} from the recorded result (allowed: {TOLERANCE:g})."
    )
    advice = "" if result.passes else "Choose another device or --full-precision, and report it with this output."
    return Check("self-test", result.passes, finding, advice, essential=True)


def _torch_problem() -> str:
    """Import torch in a separate process, since a damaged one can crash the program; return "" if that works."""
    done = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return f"installed, but its import fails: {last[0]}."
