"""The part of MONAI Label's interface that segments: its clients can ask `/info/` and send scans to `/infer/MODEL`.

There is no data store and no session: the scan comes with the request, in the field `file` of a form. The protocol is
that of MONAI Label 0.8 (https://github.com/Project-MONAI/MONAILabel).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from HSAMSegmentLib import __version__
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.service.jobs import DONE, Job
from HSAMSegmentLib.service.routes import (
    DEFAULT_FORMAT,
    UPLOAD_BODY,
    Owner,
    TheService,
    Wishes,
    accept,
    delivery,
    error_answers,
)
from HSAMSegmentLib.service.service import Service
from HSAMSegmentLib.service.uploads import Upload

POLL_SECONDS = 0.1
OUTPUTS = ("all", "image", "json", "dicom_seg")

router = APIRouter(tags=["MONAI Label"])


@router.get("/info/", responses=error_answers(401))
async def info(service: TheService, owner: Owner) -> dict[str, Any]:
    """What a client of MONAI Label asks first: the models and their labels."""
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
) -> Response:
    """Segment the scan of a form and answer with labels, their names, or both; the request lasts as long as the job."""
    if output not in OUTPUTS:
        raise RequestError(f"There is no output '{output}'; choose one of {', '.join(OUTPUTS)}.")
    job = await accept(request, service, owner, model, lambda upload: _wishes(model, output, upload))
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


def _wishes(model: str, output: str, upload: Upload) -> Wishes:
    try:
        params = json.loads(upload.fields.get("params") or "{}")
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The field 'params' is no JSON ({error}).") from error
    if not isinstance(params, dict):
        raise RequestError("The field 'params' is no JSON object.")
    organs = params.get("organs", [])
    if not (isinstance(organs, list) and all(isinstance(name, str) for name in organs)):
        raise RequestError("'organs' in the field 'params' is no list of names.")
    wanted = "dicom-seg" if output == "dicom_seg" else str(params.get("result_extension") or DEFAULT_FORMAT)
    return Wishes(model, tuple(organs), wanted)


async def _end_of(job: Job, request: Request, service: Service) -> None:
    """Wait for the end of a job; a client that leaves cancels it."""
    try:
        while not job.has_ended:
            if await request.is_disconnected():
                raise HTTPException(499, "The client left.")
            await asyncio.sleep(POLL_SECONDS)
    except BaseException:
        service.board.remove(job)
        raise


def _form_around(boundary: str, params: dict[str, Any], file_name: str) -> tuple[bytes, bytes]:
    """What comes before and after the file in a form of `params` and `image`."""
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
