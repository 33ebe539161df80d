"""Results of workers without access to the output folder: sent back, and written from here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from distributed import Client

from HSAMSegmentLib.errors import HSAMSegmentError, OutputError
from HSAMSegmentLib.io.scan_folder import Scan
from HSAMSegmentLib.labels.label_maps import names_path
from HSAMSegmentLib.report.segmentation_report import write_report
from HSAMSegmentLib.runtime.atomic_files import atomic_output, make_folder
from HSAMSegmentLib.workflows.cohort.worker_task import ScanAnswer, sees_file
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.segment.replace_results import atomic_replace, finished_file
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest
from HSAMSegmentLib.workflows.segment_folder.scan_outcome import DONE_BEFORE, FAILED, ScanOutcome


class SentResults:
    """Knows which workers send their results back, and writes these."""

    def __init__(self, request: FolderRequest, context: Context, beacon: str) -> None:
        """
        Args:
            request: request of the run.
            context: provides the models that older results are compared with.
            beacon: a file in the output folder that only workers with access to it can see.
        """
        self._request, self._context, self._beacon = request, context, beacon
        self._sees: dict[str, bool] = {}

    def look_at(self, client: Client, workers: Sequence[str]) -> None:
        """Ask new workers whether they see the output folder."""
        new = [worker for worker in workers if worker not in self._sees]
        if new:
            with suppress(OSError, TimeoutError):
                self._sees.update(client.run(sees_file, self._beacon, workers=new, on_error="ignore"))

    def known_outcome(self, scan: Scan) -> ScanOutcome | None:
        """The outcome of a scan that needs no worker, if workers cannot see older results; else None."""
        from HSAMSegmentLib.workflows.segment_folder.folder_scan import find_earlier, waiting_outcome

        if all(self._sees.values()) or scan.skipped or scan.problem:
            return None
        waiting = waiting_outcome(self._request, scan)
        try:
            earlier = find_earlier(self._request, scan, self._context)
        except HSAMSegmentError as error:
            return replace(waiting, status=FAILED, message=str(error))
        if earlier is None or not earlier.up_to_date:
            return None
        return replace(
            waiting, status=DONE_BEFORE, model=earlier.model, found=earlier.found, volumes_ml=earlier.volumes_ml
        )

    def received(self, answer: ScanAnswer) -> ScanOutcome:
        """Write what was sent back, and return the outcome with local paths."""
        from HSAMSegmentLib.workflows.segment_folder.folder_scan import waiting_outcome

        waiting = waiting_outcome(self._request, answer.outcome.scan)
        outcome = replace(answer.outcome, output=waiting.output)
        if not answer.files:
            return outcome
        try:
            self._write(answer)
        except HSAMSegmentError as error:
            return replace(waiting, status=FAILED, message=str(error), worker=outcome.worker)
        return outcome

    def _write(self, answer: ScanAnswer) -> None:
        """Write the files of an answer, the segmentation last.

        Raises:
            OutputError: if a file cannot be written.
        """
        from HSAMSegmentLib.workflows.segment_folder.folder_scan import output_files

        files = output_files(self._request, answer.outcome.scan)
        folder, report = make_folder(files.segmentation.parent), files.report
        contents = {name.rsplit("/", 1)[-1]: data for name, data in answer.files}
        if files.segmentation.name not in contents or report is None or report.name not in contents:
            raise OutputError("The worker sent incomplete results; is the same version installed there?")

        def write_last() -> None:
            content = {**json.loads(contents[report.name]), "output": str(files.segmentation)}
            write_report(content, report, overwrite=True)

        with finished_file(files.segmentation) as temporary:
            own = {files.segmentation.name: temporary, names_path(files.segmentation).name: names_path(temporary)}
            for name in contents.keys() - {report.name}:
                with atomic_output(own.get(name, folder / name), overwrite=True) as stream:
                    stream.write(contents[name])
            atomic_replace(temporary, files.segmentation, overwrite=True, write_report=write_last)
