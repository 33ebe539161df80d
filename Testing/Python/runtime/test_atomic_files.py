"""A file appears under its name when it is complete, and whatever keeps it from that is one sentence."""

from __future__ import annotations

import errno
import os
import time

import pytest

from HSAMSegmentLib.errors import OutputError, RequestError
from HSAMSegmentLib.runtime.atomic_files import (
    atomic_output,
    check_outputs,
    complete_file,
    explain_write_error,
    make_folder,
    sweep_leftovers,
)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    with atomic_output(tmp_path / "a.bin") as stream:
        stream.write(b"1")
        stream.flush()
        assert "a.bin" not in _names(tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"1"
    assert _names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_interrupted_file_leaves_the_older_one(tmp_path, error):
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(type(error)), atomic_output(tmp_path / "a.bin", overwrite=True) as stream:
        stream.write(b"new")
        raise error
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def test_a_file_that_came_meanwhile_is_kept(tmp_path):
    with pytest.raises(OutputError, match="exists already"), atomic_output(tmp_path / "a.bin") as stream:
        stream.write(b"mine")
        (tmp_path / "a.bin").write_bytes(b"of somebody else")
    assert (tmp_path / "a.bin").read_bytes() == b"of somebody else"
    assert _names(tmp_path) == ["a.bin"]


def test_the_temporary_name_ends_as_the_writer_needs_it(tmp_path):
    with complete_file(tmp_path / "a.seg.nrrd", overwrite=False, suffix=".seg.nrrd") as temporary:
        assert temporary.name.endswith(".seg.nrrd")
        temporary.write_text("x")
    assert _names(tmp_path) == ["a.seg.nrrd"]


@pytest.mark.parametrize("below", ["a.txt/b.bin", "a.txt/folder/b.bin"])
def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path, below):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"is a file, where a folder is needed|does not exist"):
        with atomic_output(tmp_path / below) as stream:
            stream.write(b"x")
    with pytest.raises(OutputError):
        make_folder((tmp_path / below).parent / "more")
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_a_folder_that_vanishes_while_the_file_is_written_is_an_output_error(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OutputError, match="could not be written"), atomic_output(folder / "a.bin") as stream:
        stream.write(b"x")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("now a file")


def test_the_causes_of_a_failed_write_are_told_apart(tmp_path):
    def sentence(number):
        return str(explain_write_error(OSError(number, os.strerror(number)), tmp_path / "a.bin"))

    assert sentence(errno.ENOSPC).startswith("The disk is full: a.bin could not be written to")
    assert sentence(errno.EROFS).startswith("There is no permission to write a.bin")
    assert "Input/output error" in sentence(errno.EIO)
    assert "incomplete" in str(explain_write_error(OSError("incomplete"), tmp_path / "a.bin"))


def test_all_outputs_are_checked_before_the_work(tmp_path):
    scan, one = tmp_path / "scan.nii", tmp_path / "one.json"
    scan.write_text("scan")
    check_outputs([one, None, tmp_path / "two.json"], overwrite=False, source=scan)
    with pytest.raises(RequestError, match="another output"):
        check_outputs([one, tmp_path / "." / "one.json"], overwrite=False)
    with pytest.raises(RequestError, match="is the scan"):
        check_outputs([one, scan], overwrite=True, source=scan)
    with pytest.raises(OutputError, match="is a file, where a folder is needed"):
        check_outputs([scan / "out.json"], overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_outputs([tmp_path / "nowhere" / "out.json"], overwrite=True)


def test_leftovers_of_killed_programs_are_swept_and_those_of_running_ones_kept(tmp_path):
    old, young = tmp_path / ".0123456789ab.writing.seg.nrrd", tmp_path / ".cd0123456789.writing"
    for path in (old, young):
        path.write_text("x")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    sweep_leftovers(tmp_path)
    assert _names(tmp_path) == [young.name]
