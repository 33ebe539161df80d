"""Work that cannot look at a token itself is left behind on cancel; otherwise it is as if it had been called."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
import SimpleITK as sitk
from conftest import REPOSITORY
from segment_requests import segment_to
from small_models import brightness_model

from HSAMSegmentLib.errors import CancelledError, VolumeError
from HSAMSegmentLib.runtime.progress import CancelToken, interruptible, is_work_left_behind


def _long_call():
    """One call into a library that takes many seconds and looks at nothing."""
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 5_000_000)


def test_what_the_work_returns_and_raises_is_handed_on():
    assert interruptible(lambda: 7, CancelToken()) == 7

    def fail():
        raise VolumeError("broken")

    with pytest.raises(VolumeError, match="broken"):
        interruptible(fail, CancelToken())


def test_one_long_call_is_left_behind_on_cancel():
    token = CancelToken()
    threading.Timer(0.1, token.cancel).start()
    with pytest.raises(CancelledError):
        interruptible(_long_call, token)
    assert is_work_left_behind()


def test_a_scan_that_is_being_read_does_not_hold_up_a_cancel(tmp_path):
    zeros = sitk.Image([512, 512, 500], sitk.sitkInt16)
    sitk.WriteImage(zeros, str(tmp_path / "scan.nii.gz"), True, 1)
    token, stages = CancelToken(), []

    def watch(progress):
        stages.append(progress.stage)
        threading.Timer(0.05, token.cancel).start()

    with pytest.raises(CancelledError):
        segment_to(
            tmp_path / "scan.nii.gz", tmp_path / "out.nii.gz", model=brightness_model(), progress=watch, cancel=token
        )
    assert stages == ["Reading the scan"]
    assert any("_segment" in thread.name for thread in threading.enumerate()), "reading was waited for"
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one process")
def test_the_program_ends_at_once_with_its_exit_code_while_a_library_is_still_busy():
    script = """
        import hashlib, sys
        import HSAMSegmentLib.cli.main
        from HSAMSegmentLib.runtime.progress import interruptible

        def run(argv, cancel):
            cancel.raise_if_cancelled()
            print("begun", flush=True)
            interruptible(lambda: hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000), cancel)

        HSAMSegmentLib.cli.main._run = run
        from HSAMSegmentLib.__main__ import main
        sys.exit(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "hsam-segment: Cancelled."
