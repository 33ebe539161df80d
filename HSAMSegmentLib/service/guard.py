"""Keeps web pages of other sites from using a service that listens on this computer without a token."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from HSAMSegmentLib.service.settings import is_loopback

_REFUSED = (
    "This service takes requests of programs on its own computer only. Start it with a token (--token-file) to use it "
    "under another name or from a web page."
)


class LocalOnly:
    """Refuses requests whose Host or Origin is not this computer.

    A browser sends requests of any page to any address, loopback ones included, and a name that an attacker controls
    may lead there, too (DNS rebinding). Where a token is needed, that is enough.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or _is_local(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        await JSONResponse({"detail": _REFUSED}, 403)(scope, receive, send)


def _is_local(headers: Headers) -> bool:
    names = [f"//{headers.get('host', '')}"]
    if "origin" in headers:
        names.append(headers["origin"])
    return all(_leads_here(name) for name in names)


def _leads_here(name: str) -> bool:
    try:
        return is_loopback(urlsplit(name).hostname or "")
    except ValueError:
        return False
