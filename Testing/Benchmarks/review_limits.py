"""Dice against confidence of every structure in the held-out scans of the built-in models, and what limits would flag.

The limits of the traffic light (`HSAMSegmentLib.workflows.segment.review`) come from here. Rows are kept in a CSV file,
so that the tables can be printed again without segmenting.

    python Testing/Benchmarks/review_limits.py --rows build/review.csv
    python Testing/Benchmarks/review_limits.py --rows build/review.csv --only-tables
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.weights.loading import load_model
from HSAMSegmentLib.workflows.segment.review import CHECK_BELOW, GOOD_FROM
from recipes.builtin_tasks import SHIPPED_TASKS, BuiltinTask, dataset_cases
from recipes.task_data import case_of_part, parts_of

REPOSITORY = Path(__file__).resolve().parents[2]
POOR, GOOD = 0.70, 0.80
"""Dice below which a structure needs a correction, and from which it was flagged in vain."""


@dataclass(frozen=True)
class Row:
    """One structure of one scan; the confidence is None if the model did not find what is there."""

    model: str
    scan: str
    structure: str
    dice: float
    confidence: float | None


def segmented_rows(task: BuiltinTask, data: Path, models: Path, threads: int) -> Iterator[Row]:
    """Segment the held-out scans of a model with default options."""
    model = load_model(models / f"{task.id}.safetensors")
    segmenter = Segmenter(model, options=SegmentOptions(threads=threads))
    for part in parts_of(task):
        for entry in dataset_cases(data / part.folder):
            if entry.id not in task.validation:
                continue
            case = case_of_part(entry, part, task)
            truth = Segmentation(case.labels, case.volume.geometry, model.manifest.labels, entry.id)
            result = segmenter.segment(case.volume)
            confidences = {item.label.name: item.confidence for item in result.found}
            for score in compare(result.segmentation, truth).scores:
                if score.dice is not None:
                    yield Row(task.id, entry.id, score.name, score.dice, confidences.get(score.name))


def read_rows(path: Path) -> list[Row]:
    """Rows that were kept."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Row(line["model"], line["scan"], line["structure"], float(line["dice"]), _number(line["confidence"]))
            for line in csv.DictReader(stream)
        ]


def _number(text: str) -> float | None:
    return float(text) if text else None


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Keep rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def print_rows(rows: Sequence[Row]) -> None:
    """Every structure, by rising confidence."""
    print("| confidence | Dice | structure | scan | model |\n|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row.confidence or 0.0):
        confidence = "not found" if row.confidence is None else f"{row.confidence:.2f}"
        print(f"| {confidence} | {row.dice:.2f} | {row.structure} | {row.scan} | {row.model} |")


def print_limits(rows: Sequence[Row], limits: Sequence[float]) -> None:
    """What each limit would flag: poor structures, and good ones in vain."""
    found = [row for row in rows if row.confidence is not None]
    poor = [row for row in found if row.dice < POOR]
    good = [row for row in found if row.dice >= GOOD]
    print(f"{len(rows)} structures, {len(rows) - len(found)} of them not found though they are there.\n")
    print(
        f"| confidence below | of {len(poor)} with Dice < {POOR} | of {len(good)} with Dice >= {GOOD} |\n|---|---|---|"
    )
    for limit in limits:
        flagged = [sum((row.confidence or 0.0) < limit for row in group) for group in (poor, good)]
        print(f"| {limit:.2f} | {flagged[0]} | {flagged[1]} |")


def main() -> None:
    """Segment, unless only the tables are wanted, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "Resources" / "Models")
    parser.add_argument("--rows", type=Path, default=REPOSITORY / "build" / "review.csv", help="CSV file of the rows")
    parser.add_argument("--only-tables", action="store_true", help="of rows that were kept")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.only_tables:
        rows = []
        for task in SHIPPED_TASKS:
            rows.extend(segmented_rows(task, options.data, options.models, options.threads))
            write_rows(options.rows, rows)
    rows = read_rows(options.rows)
    print_rows(rows)
    print()
    steps = [round(0.05 * step, 2) for step in range(10, 20)]
    print_limits(rows, sorted({*steps, CHECK_BELOW, GOOD_FROM}))


if __name__ == "__main__":
    main()
