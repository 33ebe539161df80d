"""`hsam-segment convert`: convert labels to another format, and measure them."""

from __future__ import annotations

import argparse
from pathlib import Path

from HSAMSegmentLib.cli.console import Console
from HSAMSegmentLib.runtime.progress import CancelToken, interruptible
from HSAMSegmentLib.workflows.results.convert import ConvertRequest, convert_labels


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Convert and report the written files; return the exit code.

    Raises:
        HSAMSegmentError: as `convert_labels`.
    """
    request = ConvertRequest(
        labels=arguments.labels,
        output=arguments.output,
        scan=arguments.scan,
        series=arguments.series or "",
        format=arguments.format or "",
        statistics=arguments.statistics,
        names=arguments.names,
        overwrite=arguments.overwrite,
    )
    written: list[Path] = [path for path in (arguments.output, arguments.statistics) if path is not None]
    with Console(quiet=arguments.quiet) as console:
        labels = interruptible(lambda: convert_labels(request), cancel)
        for note in labels.notes:
            console.note(note)
        console.note(f"{' and '.join(map(str, written))}: {len(labels.labels)} structures.")
    return 0
