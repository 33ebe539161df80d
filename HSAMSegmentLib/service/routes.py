"""The routes of the service: send a scan, follow its job, fetch the result, or delete everything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Optional
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Security
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from HSAMSegmentLib import __version__
from HSAMSegmentLib.export.formats import FORMAT_NAMES, format_named
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.report.segmentation_report import STATEMENT
from HSAMSegmentLib.runtime.disk import sha256_of
from HSAMSegmentLib.service.answers import ErrorAnswer, JobAnswer, job_answer, job_events
from HSAMSegmentLib.service.delivery import Delivery
from HSAMSegmentLib.service.intake import prepare_scan
from HSAMSegmentLib.service.jobs import DONE, Job
from HSAMSegmentLib.service.service import Service
from HSAMSegmentLib.service.uploads import CutUploadError, Upload, receive_upload
from HSAMSegmentLib.workflows.segment.segment_request import OutputFiles, SegmentRequest

DEFAULT_FORMAT = "nii.gz"
MEDIA_TYPES = {".gz": "application/gzip", ".dcm": "application/dicom"}

_bearer = HTTPBearer(auto_error=False, description="One of the tokens that the service was started with.")


class Wishes:
    """Options for segmenting a client's scan.

    Raises:
        RequestError: if the format is unknown, or a package that it needs is missing.
    """

    def __init__(self, model: str, organs: tuple[str, ...], format: str, series: str = "", tta: bool = True) -> None:
        self.format = format_named(format)
        self.format.require()
        self.model = model
        self.organs = organs
        self.series = series
        self.tta = tta


def service_of(request: Request) -> Service:
    """The service of a request."""
    service: Service = request.app.state.service
    return service


def owner_of(
    request: Request,
    # FastAPI evaluates this at run time, and Python 3.9 does not support "|" between types.
    credentials: Annotated[Optional[HTTPAuthorizationCredentials], Security(_bearer)] = None,  # noqa: UP045
) -> str:
    """The sender of a request; 401 if the token is missing or invalid."""
    owner = service_of(request).tokens.owner(credentials.credentials if credentials is not None else "")
    if owner is None:
        sentence = "This service needs a valid token in the header 'Authorization: Bearer TOKEN'."
        raise HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})
    return owner


Owner = Annotated[str, Depends(owner_of)]
TheService = Annotated[Service, Depends(service_of)]


def error_answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of these statuses for the OpenAPI page."""
    return {code: {"model": ErrorAnswer} for code in codes}


router = APIRouter()


@router.get("/health", tags=["service"])
async def health(service: TheService) -> dict[str, Any]:
    """Whether the service is running, and how busy it is. Needs no token."""
    return {"status": "ok", "version": __version__, "jobs": service.board.counts(), "statement": STATEMENT}


@router.get("/v1/models", tags=["models"], responses=error_answers(401))
async def models(service: TheService, owner: Owner) -> list[dict[str, Any]]:
    """The models that are ready to use, with the structures that they segment."""
    return await run_in_threadpool(service.models)


UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


@router.post(
    "/v1/jobs",
    status_code=202,
    tags=["jobs"],
    responses=error_answers(400, 401, 404, 408, 413, 422, 503, 507),
    openapi_extra=UPLOAD_BODY,
)
async def submit(
    request: Request,
    service: TheService,
    owner: Owner,
    model: Annotated[str, Query(max_length=200, description="Id of a model; empty for the one that fits.")] = "",
    organs: Annotated[str, Query(max_length=2000, description="Names, separated by commas; empty for all.")] = "",
    format: Annotated[str, Query(max_length=20, description=f"One of {', '.join(FORMAT_NAMES)}.")] = DEFAULT_FORMAT,
    series: Annotated[str, Query(max_length=200, description="Which DICOM series: UID, number, description.")] = "",
    tta: Annotated[bool, Query(description="Test-time augmentation, where the model asks for it.")] = True,
) -> JobAnswer:
    """Send a scan: NIfTI, NRRD, MetaImage, one DICOM file, or a ZIP archive with the DICOM files of a series.

    The scan is the body of the request, or the field `file` of a form. The response is sent after the upload.
    """
    wishes = Wishes(model, tuple(name.strip() for name in organs.split(",") if name.strip()), format, series, tta)
    job = await accept(request, service, owner, wishes.model, lambda upload: wishes)
    return job_answer(job, service.board)


async def accept(
    request: Request,
    service: Service,
    owner: str,
    model: str,
    wishes_of: Callable[[Upload], Wishes],
    kept_scan: Callable[[Path], Path] | None = None,
) -> Job:
    """Receive an upload and add it to the queue; on failure, nothing of it is left.

    Args:
        request: its body is the upload.
        service: the receiving service.
        owner: the sender.
        model: ID of a model, looked up before the upload is read.
        wishes_of: returns the options; called after the upload, with its form fields, has arrived.
        kept_scan: copies a scan that the service already has into a folder, for an upload without one.

    Raises:
        HSAMSegmentError: if there is no room, or the upload is incomplete, slow, large, or not a scan.
    """
    model = await run_in_threadpool(service.model_for, model)
    async with upload_folder(service, owner) as folder:
        upload = await receive_upload(request, folder, service.settings.limits, needs_file=kept_scan is None)
        wishes = wishes_of(upload)
        if upload.has_file or kept_scan is None:
            scan = await scan_of(upload, folder, service)
        else:
            scan = await run_in_threadpool(kept_scan, folder)
        if await request.is_disconnected():
            raise CutUploadError("The client left before it was told of its job.")
        return service.board.add(owner, folder, _request(service, wishes, model, scan, folder))


@asynccontextmanager
async def upload_folder(service: Service, owner: str) -> AsyncIterator[Path]:
    """Yield a folder for an upload, reserving a place in the queue; on failure, nothing of it is left.

    Raises:
        QueueFullError: if the queue is full.
    """
    folder = Path(tempfile.mkdtemp(prefix="scan-", dir=service.folder))
    try:
        with service.board.place(owner):
            yield folder
    except BaseException:
        await run_in_threadpool(shutil.rmtree, folder, True)
        raise


async def scan_of(upload: Upload, folder: Path, service: Service) -> Path:
    """Turn an upload into a scan in its folder.

    Raises:
        VolumeError: if it is not a scan.
    """
    limits = service.settings.limits
    return await run_in_threadpool(prepare_scan, upload.path, folder, limits, service.raise_if_stopping)


def _request(service: Service, wishes: Wishes, model: str, scan: Path, folder: Path) -> SegmentRequest:
    return SegmentRequest(
        input=VolumeInput(path=str(scan), series=wishes.series),
        model=model,
        device=service.settings.device,
        options=SegmentOptions(organs=wishes.organs, view_averaging=wishes.tta),
        files=OutputFiles(folder / f"segmentation{wishes.format.suffix}", format=wishes.format.name),
        output_folder=str(folder),
    )


@router.get("/v1/jobs/{job_id}", tags=["jobs"], responses=error_answers(401, 404, 422))
async def status(job_id: str, service: TheService, owner: Owner) -> JobAnswer:
    """Progress of a job, with its report once it is finished."""
    return job_answer(service.board.find(job_id, owner), service.board)


@router.get(
    "/v1/jobs/{job_id}/events",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **error_answers(401, 404, 422)},
)
async def events(job_id: str, service: TheService, owner: Owner) -> StreamingResponse:
    """Server-sent events: `progress`, and finally `done`, `failed` or `cancelled`."""
    job = service.board.find(job_id, owner)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(job_events(job, service.board), media_type="text/event-stream", headers=headers)


@router.get(
    "/v1/jobs/{job_id}/result",
    tags=["jobs"],
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **error_answers(401, 404, 409, 422)},
)
async def result(
    job_id: str,
    service: TheService,
    owner: Owner,
    keep: Annotated[bool, Query(description="Keep it until DELETE, or until its time is over.")] = False,
) -> Response:
    """The segmentation. After all of it was sent, the scan, the result and the job are deleted."""
    job = service.board.find(job_id, owner)
    return await delivery(service, job, keep=keep)


async def delivery(service: Service, job: Job, *, keep: bool = False, **parts: Any) -> Delivery:
    """The response that sends the result of a job and then removes the job."""
    if job.state != DONE:
        reason = f": {job.error}" if job.error else "."
        raise HTTPException(409, f"The job is {job.state} and has no result{reason}")
    if not service.board.start_delivery(job):
        raise HTTPException(409, "The result is being sent already.")
    try:
        path = job.result_file
        digest = await run_in_threadpool(sha256_of, path)
        headers = {
            "Content-Disposition": f'attachment; filename="{quote(path.name)}"',
            "Cache-Control": "no-store",
            "X-Content-SHA256": digest,
        }
        media_type = parts.pop("media_type", MEDIA_TYPES.get(path.suffix, "application/octet-stream"))

        def ended(is_complete: bool) -> None:
            service.board.end_delivery(job, remove=is_complete and not keep)

        patience = service.settings.limits.silence_seconds
        return Delivery(path, headers=headers, media_type=media_type, ended=ended, silence_seconds=patience, **parts)
    except BaseException:
        service.board.end_delivery(job, remove=False)
        raise


@router.delete("/v1/jobs/{job_id}", status_code=204, tags=["jobs"], responses=error_answers(401, 404, 422))
async def delete(job_id: str, service: TheService, owner: Owner) -> Response:
    """Cancel a job in any state, and delete everything of it."""
    job = service.board.find(job_id, owner)
    await run_in_threadpool(service.board.remove, job)
    return Response(status_code=204)
