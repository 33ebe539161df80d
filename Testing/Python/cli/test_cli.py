"""The program `hsam-segment` itself: help, wrong arguments, what it shows and to whom."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from program_environment import one_line, two_organs, write_labels

from HSAMSegmentLib.cli.main import build_parser

pytest_plugins = ("program_fixtures",)


def test_help_is_answered_without_torch_and_names_commands_and_exit_codes(program):
    imports = "import sys, runpy; sys.argv = ['hsam-segment', '--help']\n" + (
        "try: runpy.run_module('HSAMSegmentLib', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'numpy', 'scipy', 'SimpleITK', 'monai'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", imports], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert all(
        word in done.stdout for word in ("segment", "evaluate", "models", "doctor", "finetune", "exit codes", "130")
    )


@pytest.mark.parametrize("command", ["segment", "evaluate", "models", "doctor", "finetune", "teach"])
def test_every_command_has_help(program, command):
    done = program(command, "--help")
    assert done.returncode == 0
    assert f"hsam-segment {command}" in done.stdout


def test_names_of_version_0_1_still_work_and_are_not_in_the_help(capsys):
    parser = build_parser()
    assert "teach" not in parser.format_help()
    case = ["--case", "a.nii", "b.nii", "-o", "m.safetensors", "--minutes", "2"]
    new, old = (vars(parser.parse_command([name, *case])) for name in ("finetune", "teach"))
    same = {"command", "parser"}
    assert {key: value for key, value in old.items() if key not in same} == {
        key: value for key, value in new.items() if key not in same
    }
    segment = ["segment", "a.nii", "-o", "b.nii"]
    assert [parser.parse_command([*segment, *flag]).no_tta for flag in ([], ["--no-tta"], ["--single-view"])] == [
        False,
        True,
        True,
    ]
    with pytest.raises(SystemExit):
        parser.parse_command(["segment", "--help"])
    shown = capsys.readouterr().out
    assert "--no-tta" in shown
    assert "--single-view" not in shown


def test_the_version_is_the_package_version(program):
    import HSAMSegmentLib

    assert program("--version").stdout.strip() == f"hsam-segment {HSAMSegmentLib.__version__}"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["COMMAND"]),
        (["segmnt"], ["segmnt", "Did you mean segment?"]),
        (["segment", "a.nii"], ["-o/--output"]),
        (["segment", "a.nii", "-o", "b.nii", "--devise", "cpu"], ["--devise", "Did you mean --device?"]),
        (["segment", "a.nii", "-o", "b.nii", "--roi", "1,2,3"], ["--roi", "i0,i1,j0,j1,k0,k1"]),
        (["segment", "a.nii", "-o", "b.nii", "--roi", "5,5,0,1,0,1"], ["--roi", "empty"]),
        (["segment", "a.nii", "-o", "b.nii", "--batch-size", "0"], ["--batch-size", "whole number"]),
        (["segment", "none.nii", "-o", "b.nii"], ["none.nii"]),
        (["evaluate", "a", "b", "--convention", "theirs"], ["--convention", "hsam"]),
        (["evaluate", "a", "b", "--names", "liver"], ["--names", "VALUE=NAME"]),
        (["finetune", "--case", "a.nii", "-o", "m.safetensors"], ["--case", "2 arguments"]),
        (["finetune", "--case", "a", "b", "-o", "m.pth"], [".safetensors"]),
        (["finetune", "--case", "a", "b", "-o", "m.safetensors"], ["There is no file a"]),
        (["teach", "--case", "a", "b", "-o", "m.safetensors"], ["There is no file a"]),
        (
            ["finetune", "--case", "a", "b", "-o", "m.safetensors", "--minutes", "1", "--epochs", "2"],
            ["not allowed with"],
        ),
        (["models", "lst"], ["lst", "Did you mean list?"]),
    ],
)
def test_wrong_arguments_are_answered_in_one_line_with_exit_code_2(program, arguments, parts):
    done = program(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(part in one_line(done) for part in parts)


def test_quiet_says_nothing(program):
    for name in ("p.nii.gz", "r.nii.gz"):
        write_labels(program.folder / name, two_organs())
    done = program("evaluate", "p.nii.gz", "r.nii.gz", "--quiet", "--json", "n.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (program.folder / "n.json").is_file()


def test_a_reader_that_goes_away_is_no_traceback(program):
    names = {value: f"organ {value} of many" for value in range(1, 200)}
    array = np.arange(200, dtype=np.uint8).reshape(2, 10, 10)
    write_labels(program.folder / "p.seg.nrrd", array, names)
    command = [sys.executable, "-m", "HSAMSegmentLib", "evaluate", "p.seg.nrrd", "p.seg.nrrd"]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, cwd=program.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals to test with")
def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(program):
    import fcntl
    import pty
    import struct
    import termios

    write_labels(program.folder / "p.nii.gz", two_organs())
    write_labels(program.folder / "q.nii.gz", two_organs())
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    command = [sys.executable, "-m", "HSAMSegmentLib", "evaluate", "p.nii.gz", "q.nii.gz"]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=program.folder, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environ, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "Comparing" in shown
    assert "%|" in shown
    assert "Comparing" not in done.stdout
    assert program("evaluate", "p.nii.gz", "q.nii.gz").stderr == ""
    assert "same file" in program("evaluate", "p.nii.gz", "p.nii.gz").stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to send Ctrl-C to one process")
def test_ctrl_c_while_the_program_is_still_being_read_is_no_traceback(program):
    """The signal comes at the first import of the command line itself.

    A program that a shell starts in the background inherits that Ctrl-C is ignored: the handler is set anew.
    """
    code = (
        "import os, runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'HSAMSegmentLib.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['hsam-segment', 'models']\n"
        "runpy.run_module('HSAMSegmentLib', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "hsam-segment: Cancelled.\n")
