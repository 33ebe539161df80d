"""Many scans on real workers: killed ones, a scheduler that restarts, full disks, another host, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import requests
from cluster_processes import cluster, end_group, other_host, require_namespaces
from program_environment import environment
from segment_requests import segment_all_to
from small_models import write_bundle
from small_scans import write_scan

from HSAMSegmentLib.errors import CancelledError, OutputError, RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.cohort.claims import FOLDER, Claims
from HSAMSegmentLib.workflows.cohort.run_manifest import read_manifest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import DONE, DONE_BEFORE

pytest.importorskip("distributed", reason="needs the extra 'cluster'")
pytestmark = pytest.mark.slow

OPTIONS = SegmentOptions(threads=1, batch_size=1)
FINISHED = {DONE, DONE_BEFORE}
"""A worker that is killed with an answer in its hands leaves a scan that is done before the next one looks at it."""

NAMES = tuple(f"s{number}" for number in range(5))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models"), "tiny")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Scans that a worker needs about a second for."""
    folder = tmp_path_factory.mktemp("cohort") / "in"
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        array = random.integers(0, 200, (100, 48, 48)).astype(np.int16)
        array[:, 10 + number : 30, 10:20] = 200
        write_scan(folder / f"{name}.nii.gz", Volume(array, Geometry(array.shape[::-1], (1.0, 1.0, 2.0))))
    return folder


@pytest.fixture(scope="module")
def undisturbed(scans, bundle, tmp_path_factory):
    """The segmentations of a run in one process that nothing disturbs."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    run(scans, output, bundle)
    files = segmentations(output)
    assert sorted(files) == sorted(f"{name}.seg.nrrd" for name in NAMES)
    return files


def run(scans, output, bundle, **wishes):
    return segment_all_to(scans, output, **{"model": bundle, "options": OPTIONS, **wishes})


def segmentations(output):
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*.seg.nrrd")}


def statuses(result):
    return {item.scan.name: item.status for item in result.scans}


@contextmanager
def killing(output, victims):
    """Kill the process that works on a scan, for each name in `victims` once."""
    claims, left, ended, killed = Claims(output), list(victims), threading.Event(), []

    def watch():
        while left and not ended.is_set():
            for name in dict.fromkeys(left):
                tries = [json.loads(line)["pid"] for line in claims.tries(name)]
                if tries and tries[-1] not in killed and tries[-1] != os.getpid():
                    os.kill(tries[-1], signal.SIGKILL)
                    killed.append(tries[-1])
                    left.remove(name)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def test_two_workers_killed_in_the_middle_change_nothing(scans, bundle, undisturbed, tmp_path):
    output = tmp_path / "out"
    with killing(output, ["s1", "s3"]) as killed:
        result = run(scans, output, bundle, workers=2)
    assert len(killed) == 2
    assert set(statuses(result).values()) <= FINISHED
    assert segmentations(output) == undisturbed
    assert not (output / FOLDER).exists()
    assert {item.worker for item in result.scans} <= {"0", "1"}  # the other may need longer to start again


def test_a_scan_that_kills_its_workers_is_given_up_after_two_and_done_by_the_next_run(
    scans, bundle, undisturbed, tmp_path
):
    output = tmp_path / "out"
    with killing(output, ["s2", "s2"]) as killed:
        result = run(scans, output, bundle, workers=2)
    assert len(killed) == 2
    assert {name for name, status in statuses(result).items() if status not in FINISHED} == {"s2"}
    assert "2 processes ended in the middle of this scan" in result.scans[2].message
    again = run(scans, output, bundle, workers=2)
    assert statuses(again) == {**dict.fromkeys(NAMES, DONE_BEFORE), "s2": DONE}
    assert segmentations(output) == undisturbed


def test_a_restarted_scheduler_changes_nothing(scans, bundle, undisturbed, tmp_path):
    output, results = tmp_path / "out", []
    with cluster(tmp_path / "cluster") as made:
        first = made.worker("a")
        thread = threading.Thread(
            target=lambda: results.append(run(scans, output, bundle, scheduler=made.address)), daemon=True
        )
        thread.start()
        wait_until(lambda: list(output.glob(f"{FOLDER}/*.tries")))
        end_group(made.processes[0])
        end_group(first)
        made.scheduler()
        made.worker("b")
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert set(statuses(results[0]).values()) <= FINISHED
    assert "b" in {item.worker for item in results[0].scans}
    assert segmentations(output) == undisturbed


def test_paths_below_the_present_folder_reach_workers_that_started_in_another_one(
    scans, bundle, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.chdir(scans.parent)
    output = os.path.relpath(tmp_path / "out", scans.parent)
    model = os.path.relpath(bundle, scans.parent)
    with cluster(tmp_path / "cluster") as made:
        made.worker("a")
        result = run(scans.name, output, model, scheduler=made.address)
    assert set(statuses(result).values()) == {DONE}, [item.message for item in result.scans]
    assert segmentations(tmp_path / "out") == undisturbed
    report = json.loads((tmp_path / "out" / "s0.report.json").read_text())
    assert report["input"]["path"] == str(scans / "s0.nii.gz")


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def test_a_worker_with_a_full_disk_gets_no_more_scans_and_the_other_does_them(scans, bundle, undisturbed, tmp_path):
    require_namespaces()
    output = tmp_path / "out"
    (output / "in").mkdir(parents=True)
    full = f"mount -t tmpfs -o size=16k tmpfs '{output}/in' && (cat /dev/zero > '{output}/in/filler' 2>/dev/null; true)"
    with cluster(tmp_path / "cluster") as made:
        made.worker("full", prelude=full)
        wait_until(lambda: "Registered to" in (tmp_path / "cluster" / "full.log").read_text())
        with pytest.raises(OutputError, match=r"No worker can go on: The disk is full"):
            run(scans.parent, output, bundle, scheduler=made.address)
        made.worker("well")
        result = run(scans.parent, output, bundle, scheduler=made.address)
    assert set(statuses(result).values()) == {DONE}
    assert {item.worker for item in result.scans} == {"well"}
    assert {name.rsplit("/", 1)[-1]: data for name, data in segmentations(output).items()} == undisturbed


def test_a_worker_on_another_host_without_a_shared_disk_sends_its_results(scans, bundle, undisturbed, tmp_path):
    require_namespaces()
    output = tmp_path / "out"
    output.mkdir()
    with other_host() as (address, inside), cluster(tmp_path / "cluster", address) as made:
        made.worker("far", inside=inside, prelude=f"mount -t tmpfs tmpfs '{output}'")
        result = run(scans, output, bundle, scheduler=made.address)
        again = run(scans, output, bundle, scheduler=made.address)
    assert set(statuses(result).values()) == {DONE}
    assert {item.worker for item in result.scans} == {"far"}
    assert segmentations(output) == undisturbed
    assert set(statuses(again).values()) == {DONE_BEFORE}
    report = json.loads((output / "s0.report.json").read_text())
    assert report["output"] == str(output / "s0.seg.nrrd")


def test_a_cancel_leaves_what_is_finished_and_the_next_run_does_the_rest(scans, bundle, undisturbed, tmp_path):
    output, token = tmp_path / "out", CancelToken()

    def stop_after_the_first(index, count, outcome):
        if outcome.status == DONE:
            token.cancel()

    with pytest.raises(CancelledError):
        run(scans, output, bundle, workers=2, cancel=token, on_scan=stop_after_the_first)
    finished = segmentations(output)
    assert 1 <= len(finished) < len(NAMES)
    lines = [line for line in read_manifest(output / "manifest.jsonl") if line["event"] == "scan"]
    assert {f"{line['scan']}.seg.nrrd" for line in lines if line["status"] == DONE} == set(finished)
    result = run(scans, output, bundle, workers=2)
    assert {f"{name}.seg.nrrd" for name, status in statuses(result).items() if status == DONE_BEFORE} == set(finished)
    assert segmentations(output) == undisturbed


def test_ctrl_c_in_a_terminal_ends_command_and_workers_and_leaves_what_is_finished(scans, bundle, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "HSAMSegmentLib", "segment", str(scans), "-o", str(output), "--model", str(bundle)]
    command += ["--workers", "2", "--threads", "1", "--batch-size", "1"]
    with subprocess.Popen(
        command,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_until(lambda: list(output.glob("*.seg.nrrd")) or process.poll() is not None)
        group = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes of the command get it
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "hsam-segment: Cancelled."
    assert "Traceback" not in errors
    assert len(group) >= 2
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in group))
    done = {line["scan"] for line in read_manifest(output / "manifest.jsonl") if line.get("status") == DONE}
    assert {f"{name}.seg.nrrd" for name in done} == set(segmentations(output))


def test_progress_counts_scans_and_workers_and_estimates_the_rest(scans, bundle, tmp_path):
    reports = []
    run(scans, tmp_path / "out", bundle, workers=2, progress=reports.append)
    assert any("of 5 scans, 2 workers" in report.detail and report.eta_seconds for report in reports)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_workers_of_this_computer_show_pages_to_nobody(scans, bundle, tmp_path):
    statuses_of_pages = set()

    def look(index, count, outcome):
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and outcome.status == DONE:
                    for page in ("health", "json/identity.json", "info/main/workers.html"):
                        statuses_of_pages.add(page_status(connection.laddr.port, page))

    run(scans, tmp_path / "out", bundle, workers=2, on_scan=look)
    assert statuses_of_pages == {None, 404}


def page_status(port, page):
    """How a port answers a browser, None if it speaks no plain HTTP."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/{page}", timeout=10).status_code
    except requests.ConnectionError:
        return None


def test_no_scheduler_at_an_address_is_one_sentence(scans, bundle, tmp_path):
    with pytest.raises(RequestError, match="no Dask scheduler at nonsense://"):
        run(scans, tmp_path / "out", bundle, scheduler="nonsense://")
