#!/usr/bin/env python3
"""Set up everything in .venv and run it: `python3 Scripts/run.py demo` or `python3 Scripts/run.py test`.

Needs only Python 3.9 or later and its standard library. Everything is installed into `.venv` in the project's folder;
delete that folder to uninstall.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 9)
TORCH_VARIABLE = "HSAMSEGMENT_TORCH"
NEEDED_GB = 4.0
LAST_LINES = 15
MOST_TEST_PROCESSES = 8
TEST_PROCESS_GB = 3.0
COVERAGE_OPTIONS = ["--cov=HSAMSegmentLib", "--cov-report=term"]
DEMO_SCAN = Path("Testing") / "Data" / "ct_totalsegmentator" / "images" / "ct_example_full.nii.gz"


class SetupError(Exception):
    """Setup or run cannot continue; the message says why and what to do."""


class Environment:
    """The project's virtual environment: created, repaired and filled if necessary, otherwise left alone."""

    def __init__(self, root: Path) -> None:
        """`root` is the project's folder; the environment is `.venv` in it."""
        self.root = root
        self.folder = root / ".venv"
        self.stamp_file = self.folder / "hsamsegment-setup.json"
        self.log_file = self.folder / "hsamsegment-setup.log"

    @property
    def python(self) -> Path:
        """The environment's own interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def ensure(self, extras: tuple[str, ...] = ()) -> None:
        """Ensure that the environment has the project with these extras.

        Raises:
            SetupError: if that fails, with the reason and the last lines of the log.
        """
        stamp = self.read_stamp()
        extras = tuple(sorted({*extras, *stamp.get("extras", [])}))
        wanted = self.wanted_stamp(extras)
        if stamp == wanted and self.python.exists():
            return
        check_python()
        check_disk(self.root)
        if not self.is_usable():
            self.create()
        self.stamp_file.unlink(missing_ok=True)
        self.install(torch_requirements(), "PyTorch (a large download, only the first time)")
        project = str(self.root) + (f"[{','.join(extras)}]" if extras else "")
        # Named again, so that pip looks for packages that stand this PyTorch, in place of a newer PyTorch for them.
        self.install([*torch_requirements(), "--editable", project], "HSAMSegment and what it needs")
        self.stamp_file.write_text(json.dumps(wanted), encoding="utf-8")
        say("The set-up is complete.")

    def wanted_stamp(self, extras: tuple[str, ...]) -> dict[str, object]:
        """Stamp of a complete environment; a change in any of its parts means reinstalling."""
        pyproject = hashlib.sha256((self.root / "pyproject.toml").read_bytes()).hexdigest()
        return {"pyproject": pyproject, "root": str(self.root), "torch": torch_requirements(), "extras": list(extras)}

    def read_stamp(self) -> dict[str, object]:
        """Stamp of the last complete setup; empty without one."""
        try:
            stamp = json.loads(self.stamp_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def is_usable(self) -> bool:
        """Whether the environment's interpreter runs, has pip, and belongs to this folder."""
        if not self.python.exists():
            return False
        probe = [str(self.python), "-c", "import pip, sys; print(sys.prefix)"]
        try:
            done = subprocess.run(probe, capture_output=True, text=True, check=False)
        except OSError:
            return False
        return done.returncode == 0 and Path(done.stdout.strip()).resolve() == self.folder.resolve()

    def create(self) -> None:
        """Create an empty environment, replacing a partial one.

        Raises:
            SetupError: if Python lacks the required modules, or the folder is not writable.
        """
        if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise SetupError(
                "This Python cannot make virtual environments: its 'venv' part is not installed. On Debian and Ubuntu "
                f"run 'sudo apt install python{version}-venv', then start this again."
            )
        say(f"{'Repairing' if self.folder.exists() else 'Making'} the environment {self.folder}")
        command = [sys.executable, "-m", "venv", "--clear", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SetupError(f"The environment {self.folder} could not be made:\n{done.stdout}{done.stderr}".rstrip())

    def install(self, what: list[str], title: str) -> None:
        """Install with pip; its output goes to the log, downloads are shown.

        Raises:
            SetupError: if pip fails, with the likely reason and the last lines of its output.
        """
        say(f"Installing {title} ...")
        command = [str(self.python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", *what]
        last = deque(maxlen=200)
        with self.log_file.open("a", encoding="utf-8", errors="replace") as log:
            process = subprocess.Popen(
                command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
            with process:
                for line in process.stdout:
                    log.write(line)
                    last.append(line.rstrip())
                    if line.lstrip().startswith("Downloading"):
                        say(f"  {line.strip()}")
        if process.returncode != 0:
            tail = "\n".join(f"    {line}" for line in list(last)[-LAST_LINES:])
            raise SetupError(f"{reason_of_failure(last)} The whole log is {self.log_file}; it ends with:\n{tail}")


def say(text: str) -> None:
    """Print a message."""
    print(text, flush=True)


def check_python() -> None:
    """Reject a Python that is too old, or 32-bit, for which there is no PyTorch.

    Raises:
        SetupError: if this one is.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"HSAMSegment needs Python 3.9 or later; this is {platform.python_version()} ({sys.executable}). Start "
            "this script with a newer one, for example 'python3.12 Scripts/run.py demo'."
        )
    if sys.maxsize < 2**32:
        raise SetupError("This Python is a 32-bit program, for which there is no PyTorch; install a 64-bit Python.")


def check_disk(folder: Path) -> None:
    """Refuse to start without enough disk space.

    Raises:
        SetupError: if less than `NEEDED_GB` are free.
    """
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_GB:
        raise SetupError(f"Only {free:.1f} GB are free on the disk of {folder}; the set-up needs {NEEDED_GB:.0f} GB.")


def torch_requirements() -> list[str]:
    """The PyTorch requirements for pip; a nonempty environment variable HSAMSEGMENT_TORCH overrides them."""
    chosen = shlex.split(os.environ.get(TORCH_VARIABLE, ""), posix=os.name != "nt")
    if chosen:
        return chosen
    # The tested version has no builds for Python 3.9 and for Macs with an Intel processor.
    intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"
    return ["torch>=2.2" if intel_mac or sys.version_info < (3, 10) else "torch==2.13.0"]


def reason_of_failure(lines: deque[str]) -> str:
    """A sentence on why pip failed, from its output."""
    text = "\n".join(lines)
    causes = (
        (r"No space left|Errno 28|not enough space", "The disk is full; free some space and start this again."),
        (
            r"name resolution|getaddrinfo|NewConnectionError|ConnectTimeout|is unreachable|ProxyError|Max retries",
            "The package server cannot be reached; check the network or the proxy (HTTPS_PROXY) and start this again.",
        ),
        (
            r"No matching distribution found for torch|Cannot install torch",
            f"There is no such PyTorch for Python {platform.python_version()} on {platform.machine()}; use another "
            f"Python, or name another version in the environment variable {TORCH_VARIABLE}.",
        ),
        (r"Permission denied|Errno 13", "A file or folder may not be written; check the permissions of the project."),
    )
    for pattern, sentence in causes:
        if re.search(pattern, text, re.IGNORECASE):
            return sentence
    return "pip could not install everything."


def demo(environment: Environment, arguments: argparse.Namespace) -> int:
    """Segment a scan, by default a CT scan of the repository, with a built-in model; show volumes and picture."""
    if arguments.scan is not None and not Path(arguments.scan).exists():
        raise SetupError(f"There is no scan {arguments.scan}.")
    environment.ensure()
    folder = environment.root / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    scan = Path(arguments.scan).resolve() if arguments.scan is not None else environment.root / DEMO_SCAN
    name = re.sub(r"(\.nii|\.seg)?\.[A-Za-z0-9]+$", "", scan.name) or "scan"
    picture, result = folder / f"{name}.png", folder / f"{name}.seg.nrrd"
    command = [str(environment.python), "-m", "HSAMSegmentLib", "segment", str(scan), "--output", str(result)]
    command += ["--preview", str(picture), "--overwrite"]
    command += ["--model", arguments.model] if arguments.model is not None else []
    say(f"Segmenting {scan}")
    code = subprocess.run(command, cwd=environment.root, check=False).returncode
    if code == 0:
        say(f"Segmentation: {result}\nPicture:      {picture}")
        if not arguments.no_open:
            show_picture(picture)
    return code


def show_picture(picture: Path) -> None:
    """Open the picture if there is a desktop."""
    if os.name == "nt":
        os.startfile(picture)
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    desktop = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if desktop and shutil.which(opener):
        subprocess.Popen([opener, str(picture)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test(environment: Environment, arguments: argparse.Namespace) -> int:
    """Run the tests, slow ones only on request. The last line says what was tested and what was not."""
    environment.ensure(("dev", "host"))
    command = [str(environment.python), "-m", "pytest"]
    command += [] if arguments.slow else ["-m", "not slow"]
    command += COVERAGE_OPTIONS if arguments.coverage else []
    processes = test_processes()
    if processes > 1 and not arguments.pytest_arguments:
        command += ["-n", str(processes), "--dist", "loadfile"]
    # The processes share the cores; additional threads would only compete with each other.
    variables = {"OMP_NUM_THREADS": "1", **os.environ} if processes > 1 else dict(os.environ)
    command += arguments.pytest_arguments
    return subprocess.run(command, cwd=environment.root, env=variables, check=False).returncode


def test_processes() -> int:
    """Number of parallel test processes: one per usable core and per 3 GB of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(max(1, min(cores, MOST_TEST_PROCESSES, memory_gb() / TEST_PROCESS_GB)))


def memory_gb() -> float:
    """Memory of this computer, or of its container; infinite if unknown."""
    known = [float("inf")]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # versions 2 and 1 of control groups
        with contextlib.suppress(ValueError, OSError):
            known.append(int((Path("/sys/fs/cgroup") / file).read_text(encoding="ascii")) / 1e9)
    return min(known)


def docs(environment: Environment, arguments: argparse.Namespace) -> int:
    """Build the documentation site; a broken link or reference is an error."""
    environment.ensure(("docs",))
    command = [str(environment.python), "-m", "mkdocs", "build", "--strict", "--quiet"]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "COLUMNS": "100"}
    code = subprocess.run(command, cwd=environment.root, env=variables, check=False).returncode
    if code == 0:
        say(f"Documentation: {environment.root / 'build' / 'site' / 'index.html'}")
    return code


def setup(environment: Environment, arguments: argparse.Namespace) -> int:
    """Only set up the environment."""
    environment.ensure(tuple(part for part in arguments.extras.split(",") if part))
    say(f"The program is {environment.python} -m HSAMSegmentLib")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser of this script."""
    parser = argparse.ArgumentParser(description="Set HSAMSegment up in .venv and run it.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    show = commands.add_parser("demo", help="segment a scan and show the result", allow_abbrev=False)
    show.add_argument("scan", nargs="?", help="a scan; a CT scan of the repository if none is named")
    show.add_argument("--model", metavar="ID|FILE", help="the model to use; see 'hsam-segment models'")
    show.add_argument("--no-open", action="store_true", help="do not open the picture")
    show.set_defaults(run=demo)
    testing = commands.add_parser("test", help="run the tests; further arguments go to pytest", allow_abbrev=False)
    testing.add_argument("--slow", action="store_true", help="the slow tests, too")
    testing.add_argument("--coverage", action="store_true", help="measure which lines are run; takes longer")
    testing.set_defaults(run=test)
    site = commands.add_parser("docs", help="build the documentation site", allow_abbrev=False)
    site.set_defaults(run=docs)
    only = commands.add_parser("setup", help="set up and nothing else", allow_abbrev=False)
    only.add_argument("--extras", default="", metavar="A,B", help="extras of pyproject.toml, for example dev,host")
    only.set_defaults(run=setup)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the script; return the exit code."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.run is not test:
        parser.error(f"unknown argument {rest[0]}")
    arguments.pytest_arguments = rest
    try:
        return arguments.run(Environment(ROOT), arguments)
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run.py: Cancelled.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
