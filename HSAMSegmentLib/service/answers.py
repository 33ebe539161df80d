"""Answers about a job, as JSON and as an event stream, and conversion of errors to answers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any, Optional

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from HSAMSegmentLib.errors import (
    CheckpointError,
    HSAMSegmentError,
    ModelNotFoundError,
    OutputError,
    RequestError,
    VolumeError,
)
from HSAMSegmentLib.service.jobs import Job, JobBoard, QueueFullError, UnknownJobError
from HSAMSegmentLib.service.uploads import CutUploadError, TooLargeError, TooSlowError, drain

EVENT_SECONDS = 0.25
KEEP_ALIVE_SECONDS = 15.0
_RETRY_SECONDS = "30"
_DRAIN_SECONDS = 2.0

_STATUS = (
    (UnknownJobError, 404),
    (QueueFullError, 503),
    (TooLargeError, 413),
    (TooSlowError, 408),
    (CutUploadError, 400),
    (RequestError, 400),
    (VolumeError, 422),
    (ModelNotFoundError, 404),
    (CheckpointError, 422),
    (OutputError, 507),
)


class ErrorAnswer(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One sentence: what is wrong, and what to do.")


class JobAnswer(BaseModel):
    """A job as its owner sees it."""

    id: str = Field(description="Name of the job. Who knows it and has the same token can read it.")
    state: str = Field(description="waiting, running, done, failed or cancelled")
    fraction: float = Field(description="Done part, 0 to 1.", ge=0.0, le=1.0)
    stage: str = Field(description="What happens now.")
    detail: str = Field(default="", description="A short addition to the stage.")
    eta_seconds: Optional[float] = Field(default=None, description="Estimated rest, where it is known.")  # noqa: UP045
    before: int = Field(default=0, description="How many jobs wait before this one, at most.")
    error: str = Field(default="", description="Why it failed, as a sentence.")
    report: dict[str, Any] = Field(
        default_factory=dict, description="Of a finished job: volumes, confidence, warnings, as in the JSON report."
    )


def job_answer(job: Job, board: JobBoard) -> JobAnswer:
    """The current status of a job for its owner."""
    progress = job.progress
    eta = progress.eta_seconds
    return JobAnswer(
        id=job.id,
        state=job.state,
        fraction=1.0 if job.state == "done" else min(max(progress.fraction, 0.0), 1.0),
        stage=progress.stage,
        detail=progress.detail,
        eta_seconds=eta if eta is not None and math.isfinite(eta) else None,
        before=board.place_in_queue(job),
        error=job.error,
        report=job.report,
    )


async def job_events(job: Job, board: JobBoard) -> AsyncIterator[str]:
    """Server-sent events: `progress` on every change, and a last event named after how the job ended."""
    told, silent = "", 0.0
    while True:
        answer = job_answer(job, board)
        text = json.dumps(answer.model_dump(exclude={"report"}), ensure_ascii=False)
        has_ended = job.has_ended
        if has_ended:
            yield f"event: {answer.state}\ndata: {text}\n\n"
            return
        if text != told:
            yield f"event: progress\ndata: {text}\n\n"
            told, silent = text, 0.0
        elif silent >= KEEP_ALIVE_SECONDS:
            yield ": still there\n\n"
            silent = 0.0
        await asyncio.sleep(EVENT_SECONDS)
        silent += EVENT_SECONDS


def add_error_answers(app: FastAPI) -> None:
    """Answer every error with a sentence."""
    app.add_exception_handler(HSAMSegmentError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_refused)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": _RETRY_SECONDS} if status == 503 else {}
    await drain(request, _DRAIN_SECONDS)
    return JSONResponse({"detail": str(error)}, status, headers={**headers, "Connection": "close"})


async def _answer_refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # registered for nothing else
    await drain(request, _DRAIN_SECONDS)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # registered for nothing else
    first = error.errors()[0]
    name = first["loc"][-1] if first.get("loc") else "request"
    return JSONResponse({"detail": f"The value of '{name}' cannot be used: {first['msg']}."}, 422)
