"""What tests of the program `hsam-segment` share: its environment, label maps to give it, and its one line of error."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

import numpy as np
from conftest import REPOSITORY

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.terminology import label_set_of


def environment(home):
    return {
        **os.environ,
        "HSAMSEGMENT_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "2",
        "COLUMNS": "100",
    }


class Program:
    """Runs the program with a store and a folder of its own; what comes back is as from `subprocess.run`.

    Attributes:
        folder: the current folder of the program.
    """

    def __init__(self, home, folder) -> None:
        self.home, self.folder = home, folder
        folder.mkdir(exist_ok=True)

    def __call__(self, *arguments, **variables):
        """Run it in this process, which saves loading everything anew; nobody answers its questions."""
        from HSAMSegmentLib.cli.main import main

        command, before = [str(argument) for argument in arguments], os.getcwd()
        os.chdir(self.folder)
        try:
            with mock.patch.dict(os.environ, {**environment(self.home), **variables}), _streams() as (output, errors):
                code = main(command)
        except SystemExit as ending:
            code = ending.code or 0
        finally:
            os.chdir(before)
        return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())

    def in_a_process(self, *arguments, **variables):
        """Run it in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "HSAMSegmentLib", *map(str, arguments)],
            cwd=self.folder,
            env={**environment(self.home), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )


@contextlib.contextmanager
def _streams():
    """Standard output and error of the program, and an input that is at its end."""
    with mock.patch("sys.stdin", io.StringIO()):
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as errors:
            yield output, errors


def write_labels(path, array, names=None, geometry=None):
    """A segmentation with names as .seg.nrrd, or a plain label map without."""
    import SimpleITK as sitk

    from HSAMSegmentLib.images.sitk_images import image_of
    from HSAMSegmentLib.labels.segmentation_files import write_segmentation

    array = np.asarray(array, dtype=np.uint8)
    geometry = geometry or Geometry(size=array.shape[::-1], spacing_mm=(1.0, 2.0, 3.0))
    if names is None:
        sitk.WriteImage(image_of(array, geometry), str(path))
    else:
        write_segmentation(Segmentation(array, geometry, label_set_of(names)), path)
    return path


def two_organs():
    array = np.zeros((6, 10, 12), dtype=np.uint8)
    array[1:5, 2:6, 2:6] = 1
    array[2:4, 7:9, 7:11] = 2
    return array


def one_line(done):
    """The one line on stderr that an error is."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("hsam-segment: ")
    return lines[0]
