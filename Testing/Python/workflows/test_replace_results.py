"""A program that is killed while it replaces a segmentation leaves the old one or the new one, never neither."""

from __future__ import annotations

import os
import pathlib
import signal

import pytest

from HSAMSegmentLib.labels.label_maps import names_path
from HSAMSegmentLib.report.segmentation_report import REPORT_SCHEMA, read_report, write_report
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.workflows.segment.replace_results import atomic_replace, finished_file, mend_interrupted
from HSAMSegmentLib.workflows.segment.result_records import same_output

OLD, NEW = b"old voxels", b"new voxels"


def _report_of(content, final):
    record = {"output": {"name": final.name, "sha256": sha256_of(content)}}
    return {"schema": REPORT_SCHEMA, "schema_version": 1, "record": record}


def _exchange(final, report, *, content=NEW):
    with finished_file(final) as finished:
        finished.write_bytes(content)
        if ".nii" in final.name:
            names_path(finished).write_bytes(b"names of " + content)
        facts = _report_of(finished, final)
        write = (lambda: write_report(facts, report, overwrite=True)) if report else (lambda: None)
        atomic_replace(finished, final, overwrite=True, write_report=write)


def _killed_at(moment, work) -> bool:
    """Run `work` in a process that is killed right before its n-th change of the folder; whether it came to that."""
    child = os.fork()
    if child == 0:
        changes = iter(range(moment))

        def deadly(real):
            def call(*arguments, **options):
                if next(changes, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        # Paths of Python 3.9 and 3.10 have their own references to these functions.
        for place in (os, getattr(pathlib, "_normal_accessor", None)):
            for name in ("replace", "unlink", "rename"):
                if hasattr(place, name):
                    setattr(place, name, deadly(getattr(place, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _killed_at_every_moment(work, prepare, check):
    moment = 0
    while True:
        prepare()
        if not _killed_at(moment, work):
            return moment
        check()
        moment += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize("with_report", [True, False])
@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz"])
def test_a_kill_at_any_moment_leaves_old_or_new_and_a_report_that_fits(tmp_path, suffix, with_report):
    folder = tmp_path / "out"
    final, report = folder / f"a{suffix}", folder / "a.report.json" if with_report else None
    ends = []

    def prepare():
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        _exchange(final, report, content=OLD)

    def check():
        mend_interrupted(final, report)
        ends.append(final.read_bytes())
        assert ends[-1] in (OLD, NEW)
        if report is not None:
            assert same_output(read_report(report)["record"], final)
        if suffix == ".nii.gz":
            assert names_path(final).read_bytes() == b"names of " + ends[-1]
        assert not [path.name for path in folder.iterdir() if ".old." in path.name]

    moments = _killed_at_every_moment(lambda: _exchange(final, report), prepare, check)
    assert moments >= 3
    assert {OLD, NEW} == set(ends)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
def test_a_kill_while_the_first_segmentation_is_written_leaves_none_or_all(tmp_path):
    final, report = tmp_path / "out" / "a.seg.nrrd", tmp_path / "out" / "a.report.json"

    def prepare():
        final.parent.mkdir(exist_ok=True)
        for path in final.parent.iterdir():
            path.unlink()

    def check():
        mend_interrupted(final, report)
        assert not final.exists() or same_output(read_report(report)["record"], final)

    assert _killed_at_every_moment(lambda: _exchange(final, report), prepare, check) >= 2


def test_a_report_that_cannot_be_written_brings_the_old_segmentation_back(tmp_path):
    final = tmp_path / "a.seg.nrrd"
    final.write_bytes(OLD)
    with pytest.raises(ZeroDivisionError), finished_file(final) as finished:
        finished.write_bytes(NEW)
        atomic_replace(finished, final, overwrite=True, write_report=lambda: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.seg.nrrd"]
    assert final.read_bytes() == OLD


def test_a_file_that_somebody_put_there_meanwhile_is_kept_with_the_older_one(tmp_path):
    final = tmp_path / "a.seg.nrrd"
    (tmp_path / ".01234567.old.a.seg.nrrd").write_bytes(OLD)
    (tmp_path / ".01234567.new.a.seg.nrrd").write_bytes(NEW)
    final.write_bytes(b"by hand")
    mend_interrupted(final, None)
    assert final.read_bytes() == b"by hand"
    assert (tmp_path / ".01234567.old.a.seg.nrrd").read_bytes() == OLD


def test_where_nothing_was_interrupted_nothing_happens(tmp_path):
    final = tmp_path / "a.seg.nrrd"
    mend_interrupted(final, tmp_path / "a.json")
    final.write_bytes(OLD)
    mend_interrupted(final, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.seg.nrrd"]
