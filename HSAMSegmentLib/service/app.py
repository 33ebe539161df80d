"""The FastAPI application of a service, and its protection against web pages of other sites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from HSAMSegmentLib import __version__
from HSAMSegmentLib.report.segmentation_report import STATEMENT
from HSAMSegmentLib.service import monai_label, routes
from HSAMSegmentLib.service.answers import add_error_answers
from HSAMSegmentLib.service.service import Service
from HSAMSegmentLib.service.settings import is_loopback

_REFUSED = (
    "This service takes requests of programs on its own computer only. Start it with a token (--token-file) to use it "
    "under another name or from a web page."
)


class LocalOnly:
    """Rejects requests whose Host or Origin is not this computer.

    A browser sends requests of any page to any address, including loopback, which an attacker's host name may resolve
    to (DNS rebinding). If a token is required, that is protection enough.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
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


def make_app(service: Service) -> FastAPI:
    """Create the application; its startup and shutdown start and stop the service.

    The pages `/docs` and `/openapi.json` describe it without other servers, so they work without internet.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.stop)

    app = FastAPIOffline(
        redoc_url=None,
        title="HSAMSegment",
        version=__version__,
        summary="Segments organs in scans. Nothing is kept after the delivery.",
        description=STATEMENT,
        lifespan=lifespan,
    )
    app.state.service = service
    add_error_answers(app)
    app.include_router(routes.router)
    app.include_router(monai_label.router)
    if not service.tokens.are_required:
        app.add_middleware(LocalOnly)
    return app
