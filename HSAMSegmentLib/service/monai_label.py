"""The segmentation part of MONAI Label's interface: clients log in, query `/info/`, and send scans to `/infer/MODEL`.

A scan is sent with the request, or in advance: as an image (`PUT /datastore/`) or as a session, like MONAI Label's
3D Slicer module does. Both are kept for a while after their last use, for their owner only. There is no other data
store. The protocol is that of MONAI Label 0.8 (https://github.com/Project-MONAI/MONAILabel).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from HSAMSegmentLib import __version__
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.service.jobs import DONE, Job
from HSAMSegmentLib.service.kept_scans import KeptScans
from HSAMSegmentLib.service.routes import (
    DEFAULT_FORMAT,
    UPLOAD_BODY,
    Owner,
    TheService,
    Wishes,
    accept,
    delivery,
    error_answers,
    scan_of,
    upload_folder,
)
from HSAMSegmentLib.service.service import Service
from HSAMSegmentLib.service.uploads import FILE_FIELD, TooLargeError, Upload, receive_upload

POLL_SECONDS = 0.1
OUTPUTS = ("all", "image", "json", "dicom_seg")
SESSION_FIELD = "files"
_LOGIN_BYTES = 8 << 10
_LOGIN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                }
            }
        },
    }
}
_KEPT_ANSWERS = error_answers(400, 401, 404, 408, 413, 422, 503, 507)

router = APIRouter(tags=["MONAI Label"])


@router.get("/auth/")
async def auth(service: TheService) -> dict[str, Any]:
    """Whether clients must log in."""
    return {"enabled": service.tokens.are_required, "client_id": "", "realm": ""}


@router.post("/auth/token", responses=error_answers(401, 413), openapi_extra=_LOGIN_BODY)
async def log_in(request: Request, service: TheService) -> dict[str, Any]:
    """Log in with any name and one of the service's tokens as the password; the response contains that token."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LOGIN_BYTES:
            raise TooLargeError("The name or the password is too long.")
    token = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
    if service.tokens.owner(token) is None:
        raise HTTPException(401, "The password is none of the tokens that this service was started with.")
    return {"access_token": token, "token_type": "bearer"}


@router.get("/auth/token/valid", responses=error_answers(401))
async def is_logged_in(owner: Owner) -> dict[str, Any]:
    """Whether a client's token is still valid."""
    return {"username": "client", "roles": []}


@router.put("/datastore/", openapi_extra=UPLOAD_BODY, responses=_KEPT_ANSWERS)
async def keep_image(
    request: Request,
    service: TheService,
    owner: Owner,
    image: Annotated[str, Query(min_length=1, max_length=200, description="How the client calls the scan.")],
) -> dict[str, Any]:
    """Keep a scan, for `/infer/MODEL?image=...`."""
    await _keep(request, service, owner, service.images, image, FILE_FIELD)
    return {"image": image}


@router.put("/session/", openapi_extra=UPLOAD_BODY, responses=_KEPT_ANSWERS)
async def keep_session(request: Request, service: TheService, owner: Owner) -> dict[str, Any]:
    """Keep a scan, for `/infer/MODEL?session_id=...`."""
    session = secrets.token_urlsafe(24)
    await _keep(request, service, owner, service.sessions, session, SESSION_FIELD)
    return {"session_id": session, "session_info": _session(service, session)}


@router.get("/session/{session_id}", responses=error_answers(401, 404, 422))
async def session(session_id: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """Whether a session still exists."""
    await run_in_threadpool(service.sessions.require, owner, session_id)
    return _session(service, session_id)


@router.delete("/session/{session_id}", responses=error_answers(401, 404, 422))
async def end_session(session_id: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """Delete the scan of a session."""
    await run_in_threadpool(service.sessions.remove, owner, session_id)
    return _session(service, session_id)


def _session(service: Service, name: str) -> dict[str, Any]:
    return {"name": name, "expiry": service.settings.limits.keep_seconds}


async def _keep(request: Request, service: Service, owner: str, kept: KeptScans, name: str, file_field: str) -> None:
    async with upload_folder(service, owner) as folder:
        upload = await receive_upload(request, folder, service.settings.limits, file_field=file_field)
        scan = await scan_of(upload, folder, service)
        await run_in_threadpool(kept.add, owner, name, folder, scan)


@router.get("/info/", responses=error_answers(401))
async def info(service: TheService, owner: Owner) -> dict[str, Any]:
    """The models and their labels, which MONAI Label clients query first."""
    models = await run_in_threadpool(service.ready_models)
    described = {
        entry.id: {
            "type": "segmentation",
            "dimension": 3,
            "labels": {label.name: label.value for label in entry.manifest.labels} if entry.manifest else {},
            "description": entry.title,
            "config": {},
        }
        for entry in models
    }
    labels = sorted({name for entry in models for name in entry.organs})
    empty: dict[str, Any] = {"trainers": {}, "strategies": {}, "scoring": {}, "train_stats": {}, "datastore": {}}
    return {
        "name": "HSAMSegment",
        "description": "Prompt-free organ segmentation. For research only.",
        "version": __version__,
        "labels": labels,
        "models": described,
        **empty,
    }


@router.post(
    "/infer/{model}",
    response_class=Response,
    openapi_extra=UPLOAD_BODY,
    responses={
        200: {"content": {"multipart/form-data": {}, "application/octet-stream": {}, "application/json": {}}},
        **error_answers(400, 401, 404, 408, 409, 413, 422, 499, 503, 507),
    },
)
async def infer(
    request: Request,
    service: TheService,
    owner: Owner,
    model: Annotated[str, Path(max_length=200, description="Id of a model.")],
    output: Annotated[str, Query(max_length=20, description=f"One of {', '.join(OUTPUTS)}.")] = "all",
    image: Annotated[str, Query(max_length=200, description="A scan that was sent before, if none comes now.")] = "",
    session_id: Annotated[str, Query(max_length=200, description="A session, if no scan comes now.")] = "",
) -> Response:
    """Segment a scan and return labels, their names, or both; the request lasts as long as the job."""
    if output not in OUTPUTS:
        raise RequestError(f"There is no output '{output}'; choose one of {', '.join(OUTPUTS)}.")
    kept = _kept_scan(service, owner, image, session_id)
    job = await accept(request, service, owner, model, lambda upload: _wishes(model, output, upload), kept)
    await _end_of(job, request, service)
    if job.state != DONE:
        await run_in_threadpool(service.board.remove, job)
        raise HTTPException(422, job.error or "The job was canceled.")
    params = {"label_names": {item["name"]: item["value"] for item in job.report.get("labels", [])}}
    params["report"] = job.report
    if output == "json":
        await run_in_threadpool(service.board.remove, job)
        return JSONResponse(params)
    if output != "all":
        return await delivery(service, job)
    boundary = secrets.token_hex(16)
    before, after = _form_around(boundary, params, job.result_file.name)
    media_type = f"multipart/form-data; boundary={boundary}"
    return await delivery(service, job, media_type=media_type, before=before, after=after)


def _kept_scan(service: Service, owner: str, image: str, session_id: str) -> Callable[[FilePath], FilePath] | None:
    """Return a function that copies the scan named in a request into a folder; None if it names none."""
    kept, name = (service.sessions, session_id) if session_id else (service.images, image)
    return (lambda folder: kept.copy(owner, name, folder)) if name else None


def _wishes(model: str, output: str, upload: Upload) -> Wishes:
    try:
        params = json.loads(upload.fields.get("params") or "{}")
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The field 'params' is not JSON ({error}).") from error
    if not isinstance(params, dict):
        raise RequestError("The field 'params' is not a JSON object.")
    organs = params.get("organs", [])
    if not (isinstance(organs, list) and all(isinstance(name, str) for name in organs)):
        raise RequestError("'organs' in the field 'params' is not a list of names.")
    wanted = "dicom-seg" if output == "dicom_seg" else str(params.get("result_extension") or DEFAULT_FORMAT)
    return Wishes(model, tuple(organs), wanted)


async def _end_of(job: Job, request: Request, service: Service) -> None:
    """Wait for the end of a job; if the client disconnects, the job is canceled."""
    try:
        while not job.has_ended:
            if await request.is_disconnected():
                raise HTTPException(499, "The client left.")
            await asyncio.sleep(POLL_SECONDS)
    except BaseException:
        service.board.remove(job)
        raise


def _form_around(boundary: str, params: dict[str, Any], file_name: str) -> tuple[bytes, bytes]:
    """The bytes before and after the file in a form of `params` and `image`."""
    lines = (
        f"--{boundary}",
        'Content-Disposition: form-data; name="params"',
        "Content-Type: application/json",
        "",
        json.dumps(params),
        f"--{boundary}",
        f'Content-Disposition: form-data; name="image"; filename="{file_name}"',
        "Content-Type: application/octet-stream",
        "",
        "",
    )
    return "\r\n".join(lines).encode(), f"\r\n--{boundary}--\r\n".encode()
