"""The one function that runs any workflow: in this thread, in another one, or in a worker process."""

from __future__ import annotations

import logging
from typing import Any

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.serialization import to_plain
from HSAMSegmentLib.workflows.context import Context, load_function
from HSAMSegmentLib.workflows.events import Result, ending_of
from HSAMSegmentLib.workflows.requests import Request

logger = logging.getLogger(__name__)

# Modules that compute import torch, so they are referenced by name and imported when their workflow starts.
WORKFLOWS = {
    "segment": "HSAMSegmentLib.workflows.segment.segment_scan:run",
    "segment folder": "HSAMSegmentLib.workflows.segment_folder.segment_folder:run",
    "finetune": "HSAMSegmentLib.workflows.finetune.finetune_job:run",
    "inspect": "HSAMSegmentLib.workflows.finetune.inspect_cases:run",
    "suggest": "HSAMSegmentLib.workflows.suggest.suggest_scans:run",
    "compare": "HSAMSegmentLib.workflows.compare.compare_job:run",
    "download": "HSAMSegmentLib.workflows.model_jobs:download_model",
    "import model": "HSAMSegmentLib.workflows.model_jobs:import_model",
    "fetch model": "HSAMSegmentLib.workflows.model_jobs:fetch_model",
    "export model": "HSAMSegmentLib.workflows.model_jobs:export_model",
    "verify": "HSAMSegmentLib.workflows.model_jobs:verify_file",
    "probe": "HSAMSegmentLib.workflows.probe:run",
}


def run(request: Request, context: Context | None = None) -> Any:
    """Run a workflow to its end in this thread.

    Args:
        request: the request.
        context: events, cancellation, and what stays loaded; default: a fresh one.

    Returns:
        The result for the kind of request.

    Raises:
        HSAMSegmentError: with a sentence for the user; CancelledError after a cancel.
    """
    if request.kind not in WORKFLOWS:
        raise RequestError(f"There is no workflow for requests of the kind '{request.kind}'.")
    return load_function(WORKFLOWS[request.kind])(request, context or Context())


def run_to_end(request: Request, context: Context) -> None:
    """Like `run`, but emit the end as the last event: result, failed or canceled. Raises nothing."""
    try:
        context.emit(Result(to_plain(run(request, context))))
    except Exception as error:  # noqa: BLE001 - the edge of a workflow: every error becomes an event that is shown
        logger.info("The %s workflow ended with %s: %s", request.kind, type(error).__name__, error)
        context.emit(ending_of(error))
