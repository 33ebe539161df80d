"""A real HTTP server on the loopback interface that answers huggingface_hub as the hub does: the part that is used."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_token_of_the_tests"


@dataclass
class Repository:
    """One repository; every commit keeps all of its files.

    Attributes:
        commits: files of each commit, by its name; the last one is `main`.
        is_private: whether reading needs the token.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    is_private: bool = False

    def resolve(self, revision: str) -> str | None:
        """The commit that a revision is."""
        return list(self.commits)[-1] if revision == "main" else (revision if revision in self.commits else None)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add files in a new commit; returns its name."""
        merged = {**self.commits[list(self.commits)[-1]], **files}
        name = hashlib.sha1(repr((len(self.commits), sorted(merged))).encode()).hexdigest()
        self.commits[name] = merged
        return name


class HubServer:
    """The server, its repositories, and what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.seen: list[tuple[str, str]] = []
        self.damage = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [item for item in self.seen if item[0] in ("POST", "PUT")]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.hub.seen.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes = (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda body: self._json({"errors": [], "warnings": []})),
            (r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>.+)", self._preupload),
            (r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>.+)", self._commit),
            (r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>.+))?", self._info),
            (r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/(?P<oid>[0-9a-f]{64})", self._lfs),
            (r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._file),
        )
        for pattern, handler in routes:
            match = re.fullmatch(pattern, path)
            if match is None:
                continue
            found = match.groupdict()
            if self._refuses(found.get("name")):
                return
            if parts.query and handler == self._info:
                found["query"] = parse_qs(parts.query)
            handler(body, **found)
            return
        self._error(404, "EntryNotFound")

    def _refuses(self, name: str | None) -> bool:
        knows = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command in ("POST", "PUT") and not knows and not self.path.startswith("/lfs/"):
            self._error(401, "")
            return True
        if name is not None and (
            name not in self.hub.repositories or (self.hub.repositories[name].is_private and not knows)
        ):
            self._error(401 if not knows else 404, "RepoNotFound")
            return True
        return False

    def _create(self, body: bytes) -> None:
        wish = json.loads(body)
        name = f"{wish.get('organization') or 'me'}/{wish['name']}"
        if name in self.hub.repositories:
            self._json({"url": f"{self.hub.address}/{name}"}, 409)
            return
        self.hub.repositories[name] = Repository(is_private=wish.get("private", wish.get("visibility") == "private"))
        self._json({"url": f"{self.hub.address}/{name}"})

    def _info(self, body: bytes, name: str, revision: str | None, query: dict | None = None) -> None:
        repository = self.hub.repositories[name]
        commit = repository.resolve(revision or "main")
        if commit is None:
            self._error(404, "RevisionNotFound")
            return
        siblings = [
            {
                "rfilename": file,
                "size": len(content),
                "blobId": hashlib.sha1(content).hexdigest(),
                **({"lfs": _lfs_facts(content)} if file.endswith(".safetensors") else {}),
            }
            for file, content in repository.commits[commit].items()
        ]
        self._json(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repository.is_private,
                "siblings": siblings,
            }
        )

    def _file(self, body: bytes, name: str, revision: str, file: str) -> None:
        repository = self.hub.repositories[name]
        commit = repository.resolve(revision)
        if commit is None:
            self._error(404, "RevisionNotFound")
            return
        content = repository.commits[commit].get(file)
        if content is None:
            self._error(404, "EntryNotFound")
            return
        etag = hashlib.sha256(content).hexdigest()
        if self.hub.damage and file.endswith(".safetensors"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}
        start = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if start:
            end = int(start[2]) + 1 if start[2] else len(content)
            headers["Content-Range"] = f"bytes {start[1]}-{end - 1}/{len(content)}"
            content = content[int(start[1]) : end]
        self._answer(206 if start else 200, content, headers)

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        files = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if item["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for item in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}", "header": {}}}}
            for item in json.loads(body)["objects"]
        ]
        self._answer(
            200,
            json.dumps({"transfer": "basic", "objects": objects}).encode(),
            {"Content-Type": "application/vnd.git-lfs+json"},
        )

    def _lfs(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._error(400, "")
            return
        self.hub.stored[oid] = body
        self._json({})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self.hub.repositories[name]
        lines = [json.loads(line) for line in body.decode().splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        parent = header.get("parentCommit")
        if parent is not None and parent != repository.resolve("main"):
            self._error(412, "")
            return
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = repository.commit(files)
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{name}/commit/{commit}"})

    def _json(self, data: object, status: int = 200) -> None:
        self._answer(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"Content-Type": "application/json", **({"X-Error-Code": code} if code else {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _lfs_facts(content: bytes) -> dict:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
