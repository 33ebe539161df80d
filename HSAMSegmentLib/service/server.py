"""Run the application with uvicorn until it is asked to stop."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.service.settings import ServiceSettings

_GRACE_SECONDS = 5
_CONNECTIONS = 400
_KEEP_ALIVE_SECONDS = 15


def serve(app: FastAPI, settings: ServiceSettings, cancel: CancelToken, listening: Callable[[str], None]) -> None:
    """Serve until `cancel` is set.

    Args:
        app: application from `make_app`.
        settings: address, certificate and timeouts.
        cancel: checked ten times a second.
        listening: called with the address of the service before the first request is accepted.

    Raises:
        RequestError: if the address cannot be used, or the certificate cannot be read.
    """
    sockets = [_bound_socket(settings.host, settings.port)]
    try:
        config = uvicorn.Config(
            app,
            http=cast(Any, functools.partial(_PatientProtocol, settings.limits.silence_seconds)),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
        )
        _load(config, settings.certificate)
        listening(_address(sockets[0], settings.certificate is not None))
        _Server(config, cancel).run(sockets=sockets)
    finally:
        for item in sockets:
            item.close()


def _bound_socket(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(
            f"The service cannot listen at {host}, port {port} ({reason}). Choose another one."
        ) from error


def _load(config: uvicorn.Config, certificate: Path | None) -> None:
    try:
        config.load()
    except OSError as error:
        raise RequestError(f"The certificate {certificate} or its key cannot be used ({error}).") from error


def _address(bound: socket.socket, is_secure: bool) -> str:
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_secure else 'http'}://{shown}:{port}"


class _Server(uvicorn.Server):
    """A server that stops with a cancel token; signals are left to the program, which sets the token."""

    def __init__(self, config: uvicorn.Config, cancel: CancelToken) -> None:
        super().__init__(config)
        self._cancel = cancel

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Keep the program's own handlers."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by uvicorn; True stops the server."""
        return self._cancel.is_cancelled or await super().on_tick(counter)


class _PatientProtocol(H11Protocol):
    """Closes connections whose first request does not arrive in time; uvicorn itself waits forever."""

    def __init__(self, silence_seconds: float, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._silence_seconds = silence_seconds
        self._impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._impatience = self.loop.call_later(self._silence_seconds, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._impatience is not None:
            self._impatience.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()
