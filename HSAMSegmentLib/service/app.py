"""The FastAPI application of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from HSAMSegmentLib import __version__
from HSAMSegmentLib.report.segmentation_report import STATEMENT
from HSAMSegmentLib.service import monai_label, routes
from HSAMSegmentLib.service.answers import add_error_answers
from HSAMSegmentLib.service.guard import LocalOnly
from HSAMSegmentLib.service.service import Service


def make_app(service: Service) -> FastAPI:
    """The application; its start and end start and end the service.

    The pages `/docs` and `/openapi.json` describe it; they need no other server, so they work without internet.
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
