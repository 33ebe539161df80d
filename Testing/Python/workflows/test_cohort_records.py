"""Records of a run over many scans: the manifest, claims, shards; several runs on one folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from program_environment import environment
from segment_requests import segment_all_to
from small_models import write_bundle
from small_scans import bright_boxes, write_scan

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.workflows.cohort.claims import FOLDER, Claims
from HSAMSegmentLib.workflows.cohort.run_manifest import RunManifest, read_manifest, read_shard, scans_of_shard
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import DONE, DONE_BEFORE, FAILED, ScanOutcome


@pytest.fixture
def folder(tmp_path):
    """Five small scans."""
    for number in range(5):
        write_scan(tmp_path / "in" / f"s{number}.nii.gz", replace(bright_boxes(), name=f"s{number}"))
    return tmp_path / "in"


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "models", "tiny")


def run(source, output, bundle, **wishes):
    return segment_all_to(source, output, **{"model": bundle, "options": SegmentOptions(threads=1), **wishes})


def scan_lines(path):
    return [line for line in read_manifest(path) if line["event"] == "scan"]


def test_the_manifest_says_what_was_asked_for_and_what_became_of_each_scan(folder, bundle, tmp_path):
    output = tmp_path / "out"
    (folder / "broken.nii.gz").write_bytes(b"no scan")
    result = run(folder, output, bundle)
    run(folder, output, bundle)
    lines = list(read_manifest(result.manifest))
    starts = [line for line in lines if line["event"] == "run"]
    assert [line["scans"] for line in starts] == [6, 6]
    assert starts[0]["run"] != starts[1]["run"]
    first = [line for line in scan_lines(result.manifest) if line["run"] == starts[0]["run"]]
    assert {line["scan"]: line["status"] for line in first} == {
        "broken": FAILED,
        **{f"s{number}": DONE for number in range(5)},
    }
    assert {line["output"] for line in first} == {None, *(f"s{number}.seg.nrrd" for number in range(5))}
    assert Counter(line["status"] for line in scan_lines(result.manifest)) == {DONE: 5, DONE_BEFORE: 5, FAILED: 2}


def test_a_manifest_that_a_kill_has_torn_at_any_byte_can_be_read_and_goes_on(tmp_path):
    outcome = ScanOutcome(Scan(Path("in/a.nii.gz"), "a"), FAILED, "why: ä")
    whole = tmp_path / "whole.jsonl"
    manifest = RunManifest(whole, "one")
    manifest.start(FolderRequest("in", "out"), 3)
    manifest.add(outcome, tmp_path)
    content = whole.read_bytes()
    first = content.index(b"\n") + 1
    for end in range(first, len(content)):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(content[:end])
        RunManifest(torn, "two").add(outcome, tmp_path)
        lines = list(read_manifest(torn))
        complete = end == len(content) - 1  # only the end of the line is missing
        assert [line["run"] for line in lines] == (["one", "one", "two"] if complete else ["one", "two"])
        assert lines[-1]["message"] == "why: ä"


def test_a_claim_keeps_others_out_until_it_is_released(tmp_path):
    mine, theirs = Claims(tmp_path), Claims(tmp_path)
    claim = mine.claim("a")
    assert theirs.claim("a") is None
    other = theirs.claim("b")
    claim.release()
    again = theirs.claim("a")
    assert again is not None
    again.release()
    other.release()
    theirs.tidy()
    assert not (tmp_path / FOLDER).exists()


def test_tries_that_end_in_order_are_not_counted_and_two_dead_ones_pass_the_scan_over_once(tmp_path):
    claims = Claims(tmp_path)
    with pytest.raises(ZeroDivisionError), claims.one_try("a"):
        raise ZeroDivisionError
    assert claims.tries("a") == []
    for _ in range(2):
        die = "import os, sys; from HSAMSegmentLib.workflows.cohort.claims import Claims; from pathlib import Path\n"
        die += "with Claims(Path(sys.argv[1])).one_try('a') as poisoned:\n    assert not poisoned\n    os._exit(1)"
        done = subprocess.run([sys.executable, "-c", die, str(tmp_path)], env=environment(tmp_path), check=False)
        assert done.returncode == 1
    with claims.one_try("a") as poisoned:
        assert "2 processes ended in the middle of this scan" in poisoned
    with claims.one_try("a") as poisoned:
        assert not poisoned


def test_shards_are_disjoint_and_complete_and_have_records_of_their_own(folder, bundle, tmp_path):
    output = tmp_path / "out"
    for number in (1, 2):
        run(folder, output, bundle, shard=f"{number}/2")
    done = [[line["scan"] for line in scan_lines(output / f"manifest-{number}-of-2.jsonl")] for number in (1, 2)]
    assert done == [["s0", "s2", "s4"], ["s1", "s3"]]
    assert len((output / "summary-2-of-2.csv").read_text().splitlines()) == 3
    result = run(folder, output, bundle)
    assert result.count(DONE_BEFORE) == 5


def test_a_shard_may_be_empty_and_a_malformed_one_is_refused():
    scans = [Scan(Path("a"), "a")]
    assert list(scans_of_shard(scans, read_shard("2/3"))) == []
    for text in ("3", "0/3", "4/3", "a/b", "-1/3", "1/0"):
        with pytest.raises(RequestError, match="is not part of a list"):
            read_shard(text)


@pytest.mark.slow
def test_two_runs_on_one_folder_share_the_work(folder, bundle, tmp_path):
    output = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "HSAMSegmentLib",
        "segment",
        str(folder),
        "-o",
        str(output),
        "--model",
        str(bundle),
    ]
    runs = [
        subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in runs:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    statuses = Counter((line["scan"], line["status"]) for line in scan_lines(output / "manifest.jsonl"))
    assert statuses == {(f"s{number}", status): 1 for number in range(5) for status in (DONE, DONE_BEFORE)}
    assert not (output / FOLDER).exists()


def test_a_scan_of_another_run_is_waited_for_and_that_is_said(folder, bundle, tmp_path):
    output, reports = tmp_path / "out", []
    output.mkdir()
    claim = Claims(output).claim("s1")

    def release_when_waiting(report):
        reports.append(report)
        if report.stage == "Waiting for another run":
            claim.release()

    result = run(folder, output, bundle, progress=release_when_waiting)
    assert result.count(DONE) == 5
    assert "1 of 5 scans are being segmented by another run" in [report.detail for report in reports]
    order = [line["scan"] for line in scan_lines(result.manifest)]
    assert order == ["s0", "s2", "s3", "s4", "s1"]


def test_workers_without_dask_are_refused_with_the_command_that_installs_it(folder, bundle, tmp_path):
    block = "import sys; sys.modules['distributed'] = None\n"
    block += (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == 'distributed' else f(n)\n"
    )
    block += "from HSAMSegmentLib.__main__ import main; sys.exit(main())"
    arguments = ["segment", str(folder), "-o", str(tmp_path / "out"), "--model", str(bundle), "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-c", block, *arguments],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "'distributed'" in line
    assert "pip install 'hsamsegment[cluster]'" in line


def test_the_program_takes_lists_and_refuses_what_does_not_fit_them(folder, bundle, tmp_path):
    def program(*arguments, **options):
        command = [sys.executable, "-m", "HSAMSegmentLib", "segment", *map(str, arguments), "--model", str(bundle)]
        return subprocess.run(
            command, env=environment(tmp_path), capture_output=True, text=True, check=False, cwd=tmp_path, **options
        )

    done = program("-", "-o", "out", "--threads", "1", input="in/s3.nii.gz\nin/s4.nii.gz\n")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/in/s4.report.json").read_text())["output"] == "out/in/s4.seg.nrrd"
    refused = program("in/*.nii.gz", "-o", "out.seg.nrrd")
    assert (refused.returncode, "names many scans" in refused.stderr) == (2, True)
    refused = program("in/s1.nii.gz", "-o", "out.seg.nrrd", "--workers", "2")
    assert (refused.returncode, "--workers is for a folder" in refused.stderr) == (2, True)
