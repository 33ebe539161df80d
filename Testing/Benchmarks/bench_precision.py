"""What half precision costs: Dice and HD95 of the built-in models on their validation scans, in float32 and bfloat16.

    python Testing/Benchmarks/bench_precision.py --threads 2

The same scans with default options, once in each precision, one after the other; seconds are those of the network.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from HSAMSegmentLib.evaluation.metrics import Comparison, compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.devices import PRECISION_VARIABLE
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.weights.loading import load_model
from recipes.builtin_tasks import SHIPPED_TASKS, BuiltinTask, dataset_cases
from recipes.task_data import case_of_part, parts_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PRECISIONS = ("float32", "bfloat16")


def validation_cases(task: BuiltinTask) -> list[Case]:
    """The validation scans of all data sets of a task."""
    return [
        case_of_part(entry, part, task)
        for part in parts_of(task)
        for entry in dataset_cases(DATA / part.folder)
        if entry.id in task.validation
    ]


def row(task: BuiltinTask, threads: int) -> str:
    """A row of the table."""
    model, seconds = load_model(task.id), dict.fromkeys(PRECISIONS, 0.0)
    comparisons: dict[str, list[Comparison]] = {name: [] for name in PRECISIONS}
    segmenter = Segmenter(model, device="cpu", options=SegmentOptions(threads=threads))
    for case in validation_cases(task):
        truth = Segmentation(case.labels, case.volume.geometry, model.manifest.labels, "truth")
        for precision in PRECISIONS:
            os.environ[PRECISION_VARIABLE] = precision
            result = segmenter.segment(case.volume)
            seconds[precision] += result.timings_s["network"]
            comparisons[precision].append(compare(result.segmentation, truth))
    dice, hd95 = ([mean(comparisons[name], metric) for name in PRECISIONS] for metric in ("dice", "hd95"))
    columns = [*(f"{value:.4f}" for value in dice), *(f"{value:.2f}" for value in hd95)]
    columns += [f"{seconds[name]:.1f}" for name in PRECISIONS]
    return f"| `{task.id}` | {' | '.join(columns)} |"


def mean(comparisons: list[Comparison], metric: str) -> float:
    """Mean over structures of the means over scans."""
    values = [[getattr(score, metric) for score in item.scores] for item in comparisons]
    return float(np.nanmean(np.nanmean(np.array(values, dtype=float), axis=0)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[task.id for task in SHIPPED_TASKS])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    print("| model | Dice float32 | bfloat16 | HD95 (mm) float32 | bfloat16 | network (s) float32 | bfloat16 |")
    print("|---|---|---|---|---|---|---|")
    for task in SHIPPED_TASKS:
        if task.id in options.models:
            print(row(task, options.threads), flush=True)


if __name__ == "__main__":
    main()
