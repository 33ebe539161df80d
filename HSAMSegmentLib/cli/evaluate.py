"""`hsam-segment evaluate`: compare two segmentations."""

from __future__ import annotations

import argparse

from HSAMSegmentLib.cli.console import Console, format_table, write_json
from HSAMSegmentLib.evaluation.metrics import Comparison, LabelScore, compare
from HSAMSegmentLib.labels.segmentation_files import read_two_segmentations
from HSAMSegmentLib.report.comparison_report import comparison_to_json
from HSAMSegmentLib.runtime.atomic_files import check_outputs
from HSAMSegmentLib.runtime.progress import CancelToken, interruptible


def run(arguments: argparse.Namespace, cancel: CancelToken) -> int:
    """Compare, print a table, and write JSON if requested; return the exit code.

    Raises:
        HSAMSegmentError: if a file cannot be read or there is nothing to compare.
    """
    check_outputs([arguments.json], overwrite=arguments.overwrite)
    prediction, reference = interruptible(
        lambda: read_two_segmentations(arguments.prediction, arguments.reference, names=arguments.names), cancel
    )
    with Console(quiet=arguments.quiet) as console:
        comparison = compare(
            prediction,
            reference,
            arguments.convention,
            organs=arguments.organs,
            progress=console.progress,
            cancel=cancel,
        )
        if arguments.json is not None:
            write_json(arguments.json, comparison_to_json(comparison), overwrite=arguments.overwrite)
        console.result(_table(comparison))
        if arguments.prediction.resolve() == arguments.reference.resolve():
            console.note("Prediction and reference are the same file, so these numbers say nothing.")
        for note in comparison.notes:
            console.note(note)
    return 0


def _table(comparison: Comparison) -> str:
    unit = comparison.unit
    headers = ("structure", "Dice", "Jaccard", f"HD95 {unit}", f"ASD {unit}", "mL", "reference mL", "difference", "")
    rows = [_row(score) for score in comparison.scores]
    means = [_number(comparison.mean(metric), digits) for metric, digits in _METRICS]
    rows.append(("mean", *means, "", "", "", ""))
    return format_table(headers, rows) + _counted(comparison)


_METRICS = (("dice", 4), ("jaccard", 4), ("hd95", 2), ("asd", 2))


def _row(score: LabelScore) -> tuple[str, ...]:
    percent = score.volume_difference_percent
    return (
        score.name,
        *(_number(getattr(score, metric), digits) for metric, digits in _METRICS),
        f"{score.prediction_ml:.2f}",
        f"{score.reference_ml:.2f}",
        "-" if percent is None else f"{percent:+.1f} %",
        "" if score.state == "both" else score.state,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _counted(comparison: Comparison) -> str:
    """Say so if the means do not include all structures."""
    total = len(comparison.scores)
    dice, distances = comparison.counted("dice"), comparison.counted("hd95")
    if dice == distances == total:
        return ""
    return f"\nThe mean Dice is over {dice} and the mean distances are over {distances} of {total} structures."
