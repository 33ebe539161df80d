"""A real Dask scheduler and real workers for tests: processes on loopback, or in namespaces that make other hosts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY

_START_SECONDS = 60.0


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Cluster:
    """Starts processes of a cluster, and ends them."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        """
        Args:
            folder: for the output of the processes and the scratch space of the workers.
            host: address that the scheduler listens on.
        """
        self.folder, self.host, self.port = folder, host, free_port()
        self.processes: list[subprocess.Popen] = []
        folder.mkdir()

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        return f"tcp://{self.host}:{self.port}"

    def scheduler(self) -> subprocess.Popen:
        """Start the scheduler, and wait until it listens."""
        options = ["--host", self.host, "--port", str(self.port), "--no-dashboard", "--no-show"]
        process = self._start("scheduler", options, [])
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                return process
            except OSError:
                time.sleep(0.1)
        raise TimeoutError((self.folder / "scheduler.log").read_text())

    def worker(
        self, name: str, *, inside: Sequence[str] = (), prelude: str = "", temporary: Path | None = None
    ) -> subprocess.Popen:
        """Start a worker.

        Args:
            name: of the worker.
            inside: command that runs the worker's command, such as `ip netns exec host`.
            prelude: shell commands that come first, in a mount namespace of the worker's own.
            temporary: its folder for temporary files.
        """
        options = [self.address, "--name", name, "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
        options += ["--local-directory", str(self.folder / f"scratch-{name}"), "--death-timeout", "60"]
        return self._start("worker", options, inside, prelude=prelude, log=name, temporary=temporary)

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            end_group(process)

    def _start(
        self,
        part: str,
        options: Sequence[str],
        inside: Sequence[str],
        *,
        prelude: str = "",
        log: str = "",
        temporary: Path | None = None,
    ) -> subprocess.Popen:
        command = [*inside, sys.executable, "-m", f"distributed.cli.dask_{part}", *options]
        if prelude:
            script = f'mount --make-rprivate / && {prelude} && exec "$@"'
            command = ["unshare", "-m", "sh", "-c", script, "sh", *command]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        if temporary is not None:
            environment["TMPDIR"] = str(temporary)
        with open(self.folder / f"{log or part}.log", "ab") as stream:
            process = subprocess.Popen(
                command, stdout=stream, stderr=stream, env=environment, cwd=self.folder, start_new_session=True
            )
        self.processes.append(process)
        return process


def end_group(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """End a process and those that it started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    process.wait(timeout=30)


@contextmanager
def cluster(folder: Path, host: str = "127.0.0.1") -> Iterator[Cluster]:
    """A scheduler without workers; all processes are ended at the end."""
    made = Cluster(folder, host)
    try:
        made.scheduler()
        yield made
    finally:
        made.close()


def require_namespaces() -> None:
    """Skip the test where mount namespaces cannot be made."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("a disk of its own for one worker needs Linux and the rights of an administrator")


@contextmanager
def other_host() -> Iterator[tuple[str, list[str]]]:
    """A network namespace with a cable to this one: the address of this end, and the command to run things there."""
    name, here, there = f"hsam{os.getpid()}", f"hv{os.getpid()}a"[:15], f"hv{os.getpid()}b"[:15]
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", name], check=False).returncode != 0:
        pytest.skip("a worker on another host needs 'ip netns' and the rights of an administrator")
    try:
        for command in (
            f"ip link add {here} type veth peer name {there}",
            f"ip link set {there} netns {name}",
            f"ip addr add 10.213.7.1/24 dev {here}",
            f"ip link set {here} up",
            f"ip -n {name} addr add 10.213.7.2/24 dev {there}",
            f"ip -n {name} link set {there} up",
            f"ip -n {name} link set lo up",
        ):
            if subprocess.run(command.split(), check=False).returncode != 0:
                pytest.skip("this kernel has no virtual network cables (veth)")
        yield "10.213.7.1", ["ip", "netns", "exec", name]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)
