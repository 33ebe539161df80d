"""`hsam-segment finetune --suggest N FOLDER`: suggest which scans to label next."""

from __future__ import annotations

import argparse
import csv
import io
from dataclasses import asdict
from pathlib import Path

from HSAMSegmentLib.cli.console import Console, format_table, write_json
from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime.atomic_files import atomic_output, check_outputs
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.workflows.context import Context, progress_only
from HSAMSegmentLib.workflows.run import run as run_workflow
from HSAMSegmentLib.workflows.suggest.suggest_request import Suggestions, SuggestRequest

_COLUMNS = ("rank", "scan", "path", "series", "score", "uncertainty", "novelty", "entropy", "reasons")


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Survey the scans of a folder and print the most useful ones; return the exit code.

    Raises:
        HSAMSegmentError: as the workflow.
    """
    report: Path | None = arguments.report
    if report is not None and report.suffix.lower() not in (".json", ".csv"):
        raise RequestError(f"Suggestions are written to a .json or .csv file, not to {report.name}.")
    check_outputs([report], overwrite=arguments.overwrite)
    count, folder = _count_and_folder(arguments.suggest)
    request = SuggestRequest(
        source=folder,
        count=count,
        model=str(arguments.start_from or ""),
        device=arguments.device,
        labeled=tuple(str(image) for image, _ in arguments.cases or ()),
    )
    with Console(quiet=arguments.quiet) as console:
        found = run_workflow(request, Context(progress_only(console.progress), cancel))
        rows = [
            (str(item.rank), item.name, f"{item.score:.2f}", f"{item.uncertainty:.2f}", f"{item.novelty:.2f}")
            for item in found.scans
        ]
        console.result(format_table(("rank", "scan", "score", "uncertainty", "novelty"), rows))
        for item in found.scans:
            console.result(f"{item.rank}. {item.name}: {' '.join(item.reasons)}")
        for name, reason in found.failed:
            console.note(f"{name} was left out: {reason}")
        console.note(f"{found.looked_at} scans were compared with {found.model}.")
        if report is not None:
            _write(found, report, arguments.overwrite)
    return 0


def _count_and_folder(values: list[str]) -> tuple[int, str]:
    count, folder = values
    if not count.isdigit() or int(count) < 1:
        raise RequestError(f"--suggest wants a number and a folder, and '{count}' is not a number from 1 on.")
    return int(count), folder


def _write(found: Suggestions, path: Path, overwrite: bool) -> None:
    if path.suffix.lower() == ".json":
        write_json(path, asdict(found), overwrite=overwrite)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for item in found.scans:
        numbers = (f"{value:.4f}" for value in (item.score, item.uncertainty, item.novelty, item.entropy))
        writer.writerow((item.rank, item.name, item.path, item.series, *numbers, " ".join(item.reasons)))
    with atomic_output(path, overwrite=overwrite) as stream:
        stream.write(text.getvalue().encode("utf-8", "backslashreplace"))
