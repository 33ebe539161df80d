"""Limits, settings and tokens of the service. Plain data."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from HSAMSegmentLib.errors import RequestError

SHORTEST_TOKEN = 16
NOBODY = ""
"""The owner of all jobs if no tokens are required."""


@dataclass(frozen=True)
class Limits:
    """Limits that keep one client from blocking the others.

    Attributes:
        upload_bytes: maximum size of an upload.
        unpacked_bytes: maximum size of an unpacked ZIP archive.
        files: maximum number of files in a ZIP archive.
        upload_seconds: maximum duration of an upload.
        silence_seconds: longest pause within an upload or a delivery, and before the first line of a request.
        job_seconds: maximum duration of one job, without its time in the queue.
        keep_seconds: how long a result waits for its client.
        waiting_jobs: uploads in progress and jobs in the queue; further ones are rejected until there is room.
        kept_jobs: jobs in total, including those whose result was not fetched yet.
        kept_scans: scans that a MONAI Label client may keep here at once.
    """

    upload_bytes: int = 2 << 30
    unpacked_bytes: int = 8 << 30
    files: int = 20_000
    upload_seconds: float = 1800.0
    silence_seconds: float = 30.0
    job_seconds: float = 3600.0
    keep_seconds: float = 3600.0
    waiting_jobs: int = 100
    kept_jobs: int = 1000
    kept_scans: int = 20


@dataclass(frozen=True)
class ServiceSettings:
    """All settings of a service.

    Attributes:
        host: address or name to listen on.
        port: TCP port; 0 for any free one.
        tokens: tokens that grant access; empty to grant it to everybody who can connect.
        model: ID or file of the model for requests that name none; "" to choose by the scan.
        device: "auto", "cpu", "cuda", ...
        workers: number of parallel jobs, each in its own process.
        folder: where uploads and results are kept until delivery; None for the system's temporary folder.
        certificate: PEM file for HTTPS, or None.
        key: PEM file of its private key, or None if the certificate file contains it.
        limits: limits on clients.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tokens: tuple[str, ...] = ()
    model: str = ""
    device: str = "auto"
    workers: int = 1
    folder: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.tokens:
            raise RequestError(
                f"At {self.host} other computers can reach the service, so it needs a token. Write one of "
                f"{SHORTEST_TOKEN} characters or more to a file and give it with --token-file."
            )


def is_loopback(host: str) -> bool:
    """Whether only this computer can connect to an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_tokens(path: Path) -> tuple[str, ...]:
    """Read tokens from a file: one per line; empty lines and lines that begin with # are ignored.

    Raises:
        RequestError: if the file is unreadable or has no token, or one is too short to be safe.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The file of tokens {path} cannot be read ({error}).") from error
    return checked_tokens((line for line in lines if line and not line.startswith("#")), str(path))


def checked_tokens(tokens: Iterable[str], source: str) -> tuple[str, ...]:
    """Validate tokens and remove repetitions.

    Raises:
        RequestError: if there is none, or one is too short or has characters that no header can carry.
    """
    unique = tuple(dict.fromkeys(tokens))
    if not unique:
        raise RequestError(f"{source} has no token; write one a line.")
    for number, token in enumerate(unique, 1):
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise RequestError(
                f"Token {number} of {source} cannot be used: it needs {SHORTEST_TOKEN} characters or more, without "
                "blanks. 'openssl rand -hex 24' makes a good one."
            )
    return unique


class Tokens:
    """Identifies the sender of a request by a hash of the token; the tokens themselves are not stored."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._owners = tuple(_digest(token) for token in tokens)

    @property
    def are_required(self) -> bool:
        """Whether requests need a token."""
        return bool(self._owners)

    def owner(self, token: str) -> str | None:
        """The owner of a token: a name for comparisons; `NOBODY` if none is required, None if it is invalid."""
        if not self._owners:
            return NOBODY
        digest = _digest(token)
        # Every token is compared in constant time, so that the duration reveals nothing.
        matches = [owner for owner in self._owners if hmac.compare_digest(owner, digest)]
        return matches[0] if matches else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
