"""`hsam-segment report`: one web page about a folder of results."""

from __future__ import annotations

import argparse

from HSAMSegmentLib.cli.console import Console
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.results.cohort_report import CohortReportRequest, write_cohort_report


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Write the page and summarize it; return the exit code.

    Raises:
        HSAMSegmentError: as `write_cohort_report`.
    """
    request = CohortReportRequest(
        folder=arguments.folder,
        output=arguments.output,
        title=arguments.title,
        pictures=not arguments.no_pictures,
        overwrite=arguments.overwrite,
    )
    with Console(quiet=arguments.quiet) as console:
        cohort = write_cohort_report(request, Context(progress_only(console.progress), cancel))
        for note in cohort.notes:
            console.note(note)
        looks = sum(bool(scan.worth_a_look) for scan in cohort.scans)
        console.note(
            f"{arguments.output} shows {len(cohort.scans)} scans, {looks} of them worth a look. For research only, not "
            "for clinical decisions."
        )
    return 0
