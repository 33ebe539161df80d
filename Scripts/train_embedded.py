"""Train the embedded models in the background; run it again to go on where it stopped.

python Scripts/train_embedded.py --data ../shared/data --minutes 80
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from HSAMSegmentLib.training.recipe import augment_rule
from HSAMSegmentLib.training.state_files import load_state, save_state
from recipes.builtin_tasks import TASKS
from recipes.train_builtin import BuiltinTraining, Settings, describe, load_task, train

REPOSITORY = Path(__file__).resolve().parents[1]


def mean_state(states: list[dict]) -> dict:
    """The mean of averaged weights of one course (Izmailov et al., UAI 2018), to judge or to go on from.

    Steps, seconds and scans are those of the first state.
    """
    weights = {
        name: sum(state["average"][name] for state in states) / len(states) if value.is_floating_point() else value
        for name, value in states[0]["average"].items()
    }
    return {"average": weights, **{key: states[0][key] for key in ("steps", "seconds", "taught")}}


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--state", type=Path, default=REPOSITORY / "Scratch" / "embedded.training")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all, earlier runs included")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for mixed precision")
    parser.add_argument("--batch-factor", type=int, default=1, help="larger batches, for a GPU")
    parser.add_argument("--rate", type=float, default=Settings.rate, help="highest learning rate")
    parser.add_argument("--export-average", type=Path, help="write only the averaged weights, small, and stop")
    parser.add_argument(
        "--mean-with",
        type=Path,
        nargs="*",
        default=[],
        help="with --export-average: the mean with these states' weights",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], help="tasks to leave out, to test teaching on unseen data")
    parser.add_argument("--wide-views", action="store_true", help="vary the views as in teaching from one scan")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = Settings(
        minutes=options.minutes, rate=options.rate, device=options.device, batch_factor=options.batch_factor
    )
    if options.export_average:
        save_state(
            options.export_average, mean_state([load_state(path) for path in (options.state, *options.mean_with)])
        )
        return
    tasks = [task for task in TASKS if task.id not in options.without]
    if options.wide_views:
        tasks = [replace(task, augment=augment_rule(1)) for task in tasks]
    data = [load_task(task, options.data) for task in tasks]
    trainer = BuiltinTraining(data, settings)
    options.state.parent.mkdir(exist_ok=True)
    if options.state.is_file():
        trainer.resume(options.state)
        print(f"Going on at step {trainer.steps}.", flush=True)
    print(describe(train(trainer, options.state, report=lambda line: print(line, flush=True))), flush=True)


if __name__ == "__main__":
    main()
