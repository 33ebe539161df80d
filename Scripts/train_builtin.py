"""Train built-in models; run it again to resume.

python Scripts/train_builtin.py --data ../shared/data --minutes 80
python Scripts/train_builtin.py --tasks abdomen-ct --packed Scratch --device cuda --batch-factor 8 --minutes 10
torchrun --nproc-per-node 8 Scripts/train_builtin.py --tasks abdomen-ct --packed Scratch --device cuda --minutes 10
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.slice_bank import ArrayStore
from HSAMSegmentLib.training.loop.checkpointer import load_state, save_state
from HSAMSegmentLib.training.recipe import augment_rule
from HSAMSegmentLib.weights.loading import load_model
from recipes.builtin_tasks import BuiltinTask, tasks_of
from recipes.packed_slices import read_pack
from recipes.task_data import TaskData, read_task, task_data
from recipes.train_builtin import BuiltinTraining, Settings, describe, train

REPOSITORY = Path(__file__).resolve().parents[1]


def mean_state(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the averaged weights of one training (Izmailov et al., UAI 2018), to evaluate or to continue from.

    Steps, seconds and scans are those of the first state.
    """
    weights = {
        name: sum(state["average"][name] for state in states) / len(states) if value.is_floating_point() else value
        for name, value in states[0]["average"].items()
    }
    return {"average": weights, **{key: states[0][key] for key in ("steps", "seconds", "taught")}}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--packed", type=Path, help="folder of files from pack_training_data.py, instead of --data")
    parser.add_argument("--state", type=Path, default=REPOSITORY / "Scratch" / "builtin.training")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all, earlier runs included")
    parser.add_argument("--start-from", help="model id or file whose weights a new training starts from")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for bfloat16")
    parser.add_argument("--batch-factor", type=int, default=1, help="larger batches, to fill a GPU")
    parser.add_argument("--rate", type=float, default=Settings.rate, help="highest learning rate")
    parser.add_argument("--average-decay", type=float, default=Settings.average_decay, help="of the weight average")
    parser.add_argument("--validate-minutes", type=float, default=Settings.validate_minutes)
    parser.add_argument("--export-average", type=Path, help="write only the averaged weights, small, and stop")
    parser.add_argument(
        "--mean-with",
        type=Path,
        nargs="*",
        default=[],
        help="with --export-average: the mean with the weights of these states",
    )
    parser.add_argument("--stream", type=Path, help="with --data: keep slices in this folder instead of in memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", nargs="*", default=[], help="ids of the tasks; default: the joint training")
    parser.add_argument("--without", nargs="*", default=[], help="ids of tasks to leave out")
    parser.add_argument("--strong-augmentation", "--wide-views", action="store_true", help="as for one scan")
    return parser.parse_args()


def read_data(task: BuiltinTask, options: argparse.Namespace, store: ArrayStore | None) -> TaskData:
    """The data of a task, on the device."""
    device = torch.device(options.device)
    if options.packed:
        return task_data(task, read_pack(options.packed / f"{task.id}.npz", task, device), device)
    return read_task(task, options.data, device, store)


def main() -> None:
    """Train, or resume."""
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(options.threads)
    if options.export_average:
        states = [load_state(path) for path in (options.state, *options.mean_with)]
        save_state(options.export_average, mean_state(states))
        return
    with ranks.joined(options.device) as device:
        options.device = device
        run(options)


def run(options: argparse.Namespace) -> None:
    """Train on one device, or on one of several ranks."""
    settings = Settings(
        minutes=options.minutes,
        rate=options.rate,
        device=options.device,
        validate_minutes=options.validate_minutes,
        average_decay=options.average_decay,
        batch_factor=options.batch_factor,
    )
    tasks = tasks_of(options.tasks, options.without)
    if options.strong_augmentation:
        tasks = tuple(replace(task, augment=augment_rule(1)) for task in tasks)
    store = ArrayStore(options.stream) if options.stream else None
    training = BuiltinTraining([read_data(task, options, store) for task in tasks], settings)
    options.state.parent.mkdir(exist_ok=True)
    if ranks.from_first(options.state.is_file):
        training.resume(options.state)
        say(f"Continuing at step {training.trainer.steps}.")
    elif start := options.start_from or tasks[0].start_from:
        for report in training.start_from(load_model(start)).values():
            say(report.sentence)
    say(describe(train(training, options.state)))
    if store is not None:
        store.close()


def say(sentence: str) -> None:
    """Print a message once for all ranks."""
    if ranks.is_first():
        print(sentence, flush=True)


if __name__ == "__main__":
    main()
