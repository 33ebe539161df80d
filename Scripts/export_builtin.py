"""Evaluate the models of a training state on the validation scans, and export them to Resources/Models.

python Scripts/export_builtin.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.builtin_tasks import tasks_of
from recipes.export_builtin import export, measure_ranges

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Evaluate and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--state", type=Path, default=REPOSITORY / "Scratch" / "builtin.training")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "Resources" / "Models")
    parser.add_argument("--tasks", nargs="*", default=[], help="tasks that were trained; default: the joint training")
    parser.add_argument("--without", nargs="*", default=[], help="ids of tasks to leave out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--not-judged", action="store_true", help="write bundles without metrics, for experiments")
    parser.add_argument("--note", default="", help="a sentence on the training for the manifest")
    parser.add_argument("--save-metrics", type=Path, help="JSON file for the metrics")
    parser.add_argument(
        "--measure-again", action="store_true", help="only the metrics and ranges of existing bundles, same weights"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure_again:
        for task in tasks_of(options.tasks, options.without):
            print(measure_ranges(task, options.data, options.models, device=options.device))
        return
    metrics = export(
        options.state,
        options.data,
        options.models,
        tasks=tasks_of(options.tasks, options.without),
        device=options.device,
        is_evaluated=not options.not_judged,
        note=options.note,
        report=print,
    )
    text = json.dumps(metrics, indent=1)
    if options.save_metrics:
        options.save_metrics.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
