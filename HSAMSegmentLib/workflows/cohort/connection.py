"""Connect to a Dask scheduler, of local workers or of a cluster; survives a restart of the scheduler."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.threads import usable_cores
from HSAMSegmentLib.workflows.cohort import ignore_interrupts
from HSAMSegmentLib.workflows.cohort.claims import MOST_TRIES
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest

FIRST_SECONDS = 30
RESTART_SECONDS = 600.0
_TRY_SECONDS = 5
_LOOK_SECONDS = 1.0


class Connection:
    """A client of a scheduler.

    Attributes:
        client: Dask client, replaced by `restore`.
        request: the request for the workers.
    """

    def __init__(self, request: FolderRequest, address: str, security: Security | None = None) -> None:
        """Connect.

        Raises:
            RequestError: if there is no scheduler at this address.
        """
        self.request, self._address, self._security = request, address, security
        self._workers: dict[str, int] = {}
        self._looked = 0.0
        try:
            self.client = self._open(FIRST_SECONDS)
        except (OSError, ValueError) as error:
            raise RequestError(
                f"There is no Dask scheduler at {address} ({error}). Start one with 'dask scheduler', or check the "
                "address."
            ) from error

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler is gone, and all tasks with it."""
        return self.client.status != "running"

    def workers(self) -> dict[str, int]:
        """Worker addresses and thread counts, at most a second old."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            with suppress(OSError):  # the scheduler is gone, as `is_lost` says
                self._workers = dict(self.client.nthreads())
            self._looked = time.monotonic()
        return self._workers

    def restore(self, context: Context, finished: float) -> None:
        """Wait for the scheduler to return.

        Args:
            context: receives progress and is checked for a cancel.
            finished: fraction of the scans that are done.

        Raises:
            RequestError: if it does not return.
            CancelledError: on cancel.
        """
        self._close_client()
        end = time.monotonic() + RESTART_SECONDS
        while time.monotonic() < end:
            context.emit(Progress(finished, "Waiting for the scheduler", self._address))
            context.cancel.raise_if_cancelled()
            with suppress(OSError, ValueError):
                self.client = self._open(_TRY_SECONDS)
                return
            time.sleep(_LOOK_SECONDS)
        raise RequestError(
            f"The scheduler at {self._address} went away and did not come back. What is finished stays; start the same "
            "command again when it is there."
        )

    def close(self) -> None:
        """Disconnect; tasks of this client end."""
        self._close_client()

    def _open(self, seconds: int) -> Client:
        client = Client(self._address, timeout=seconds, security=self._security, set_as_default=False)
        self._looked = 0.0
        return client

    def _close_client(self) -> None:
        with suppress(OSError, TimeoutError, RuntimeError):
            self.client.close(timeout=2)


@contextmanager
def connected(request: FolderRequest) -> Iterator[Connection]:
    """Connect to the scheduler of a request, or start local workers.

    Raises:
        RequestError: if there is no scheduler at its address.
    """
    with dask.config.set({"distributed.comm.timeouts.connect": f"{FIRST_SECONDS}s"}), _quiet():
        if request.scheduler:
            connection = Connection(request, request.scheduler)
            try:
                yield connection
            finally:
                connection.close()
        else:
            yield from _with_local_workers(request)


def _with_local_workers(request: FolderRequest) -> Iterator[Connection]:
    # A scheduler executes received programs as its user, so it requires certificates even on loopback.
    security = Security.temporary()
    threads = request.options.threads or max(1, usable_cores() // request.workers)
    request = replace(request, options=replace(request.options, threads=threads))
    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": MOST_TRIES - 1,
        "distributed.worker.daemon": True,
        # The dashboards of scheduler and workers require no certificate, so they are disabled.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with dask.config.set(settings):
        scheduler = {
            "cls": Scheduler,
            "options": {
                "host": "127.0.0.1",
                "protocol": "tls://",
                "security": security,
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
            },
        }
        cluster = SpecCluster(
            workers=_local_workers(request, security), scheduler=scheduler, security=security, silence_logs=False
        )
        try:
            connection = Connection(request, cluster.scheduler_address, security)
            try:
                yield connection
            finally:
                connection.close()
        finally:
            with suppress(TimeoutError):
                cluster.close(timeout=20)


def _local_workers(request: FolderRequest, security: Security) -> dict[int, dict[str, Any]]:
    """One process per worker, each with its share of the cores, or with one GPU."""
    devices = _visible_gpus() if request.device in ("auto", "cuda") else []
    workers = {}
    for number in range(request.workers):
        environment = {"OMP_NUM_THREADS": str(request.options.threads)}
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        options = {
            "nthreads": 1,
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": security,
            "memory_limit": 0,
            "dashboard": False,
            "silence_logs": logging.CRITICAL,
            "preload": [ignore_interrupts.__name__],
            "env": environment,
        }
        workers[number] = {"cls": Nanny, "options": options}
    return workers


def _visible_gpus() -> list[str]:
    """GPU names for CUDA_VISIBLE_DEVICES; empty without CUDA."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Dask's own messages; we report what matters in sentences."""
    log = logging.getLogger("distributed")
    before = log.level
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
