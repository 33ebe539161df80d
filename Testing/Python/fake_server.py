"""A real HTTP server on the loopback interface that misbehaves as servers, proxies and hospital networks do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import ProxyHandler, Request, build_opener


@dataclass
class Behavior:
    """How the server treats the requests for one path.

    Attributes:
        content: the file.
        status: answer with this status and no file.
        etag: strong validator; changes when the content does.
        send_range: whether Range is honored.
        range_shift: bytes by which a continued answer starts too early, truthfully declared in Content-Range.
        declared_length: a Content-Length other than the truth.
        no_length: send no Content-Length at all.
        drop_after: end the connection after so many bytes of each answer, for the first `drops` answers.
        drops: see `drop_after`.
        stall_after: send nothing more after so many bytes, for the first `stalls` answers.
        stalls: see `stall_after`.
        fail_times: answer 503 so many times before anything else.
        bytes_per_second: pace.
        redirect: answer with a redirect to this address.
        content_type: of the answer.
    """

    content: bytes = b""
    status: int = 200
    etag: str = '"one"'
    send_range: bool = True
    range_shift: int = 0
    declared_length: int | None = None
    no_length: bool = False
    drop_after: int | None = None
    drops: int = 0
    stall_after: int | None = None
    stalls: int = 0
    fail_times: int = 0
    bytes_per_second: float | None = None
    redirect: str = ""
    content_type: str = "application/octet-stream"


@dataclass
class Seen:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def range_start(self) -> int | None:
        text = self.headers.get("Range", "")
        return int(text[len("bytes=") : -1]) if text else None


class FakeServer:
    """Behaviors by path, and what was asked."""

    def __init__(self) -> None:
        self.behaviors: dict[str, Behavior] = {}
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> FakeServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, path: str, content: bytes = b"", **how: object) -> str:
        """Offer `content` under `path` and return its address."""
        self.behaviors[path] = Behavior(content=content, **how)  # type: ignore[arg-type]
        return self.address + path


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    server = FakeServer().start()
    try:
        yield server
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    server: FakeServer

    def handle_error(self, *_: object) -> None:
        """Say nothing: who asked may leave when it likes, and some tests do."""


class _Handler(BaseHTTPRequestHandler):
    """Answers as the server's behaviors say."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.owner.seen.append(Seen(self.path, dict(self.headers)))
        if self.path.startswith("http://"):
            self._forward()
            return
        behavior = self.server.owner.behaviors.get(self.path)
        if behavior is None:
            self._refuse(404)
        else:
            self._answer(behavior)

    def _answer(self, behavior: Behavior) -> None:
        if behavior.fail_times > 0:
            behavior.fail_times -= 1
            self._refuse(503)
        elif behavior.redirect:
            self._refuse(302, Location=behavior.redirect)
        elif behavior.status != 200:
            self._refuse(behavior.status)
        else:
            self._send(behavior)

    def _refuse(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _forward(self) -> None:
        """Be a proxy: fetch what another server on this machine has."""
        wanted = {name: value for name, value in self.headers.items() if name in ("Range", "If-Range")}
        with build_opener(ProxyHandler({})).open(Request(self.path, headers=wanted), timeout=10) as answer:
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            self.wfile.write(body)

    def _send(self, behavior: Behavior) -> None:
        body = behavior.content
        start = self._range_start(behavior)
        if start is not None and start >= len(body):
            self._refuse(416)
            return
        if start is None:
            self.send_response(200)
        else:
            start = max(0, start - behavior.range_shift)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        self.send_header("ETag", behavior.etag)
        self.send_header("Content-Type", behavior.content_type)
        if behavior.no_length:
            self.send_header("Connection", "close")
        else:
            length = behavior.declared_length if behavior.declared_length is not None else len(body)
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self._send_body(behavior, body)

    def _range_start(self, behavior: Behavior) -> int | None:
        text = self.headers.get("Range", "")
        if not text or not behavior.send_range:
            return None
        if self.headers.get("If-Range", behavior.etag) != behavior.etag:
            return None
        return int(text[len("bytes=") : -1])

    def _send_body(self, behavior: Behavior, body: bytes) -> None:
        drop = stall = None
        if behavior.drops > 0:
            behavior.drops -= 1
            drop = behavior.drop_after
        if behavior.stalls > 0:
            behavior.stalls -= 1
            stall = behavior.stall_after
        end = min(length for length in (len(body), drop, stall) if length is not None)
        try:
            self._send_paced(body[:end], behavior.bytes_per_second)
            if stall is not None:
                self.server.owner.closing.wait(60)
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked has left, as some tests do
        if end < len(body) or behavior.declared_length is not None or behavior.no_length:
            self.close_connection = True

    def _send_paced(self, body: bytes, bytes_per_second: float | None) -> None:
        if bytes_per_second is None:
            self.wfile.write(body)
            return
        step = max(1, int(bytes_per_second / 50))
        for start in range(0, len(body), step):
            if self.server.owner.closing.is_set():
                return
            self.wfile.write(body[start : start + step])
            time.sleep(1 / 50)
