"""Train for a test, alone or under torchrun: python train_in_ranks.py FOLDER '{"mode": "finetune", ...}'.

Writes what each rank holds at the end to FOLDER/rank-N.pt.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.rules import SliceRule
from HSAMSegmentLib.runtime.progress import CancelToken
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.cases import Case, make_case
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank
from HSAMSegmentLib.training.finetune import finetune
from HSAMSegmentLib.training.loop.trainer import Trainer
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.bundle import read_tensors
from recipes.builtin_tasks import ABDOMEN
from recipes.task_data import task_data
from recipes.train_builtin import BuiltinTraining, Settings, train


def cases(count: int) -> list[Case]:
    """Small phantoms, all of their slices labeled."""
    geometry = phantom_geometry(size=(60, 60, 20), spacing_mm=(5.5, 5.5, 12.0))
    made = [make_case(*abdomen_phantom(seed=seed, geometry=geometry)) for seed in range(count)]
    return [
        replace(case, labeled=None, volume=replace(case.volume, name=f"scan {number}"))
        for number, case in enumerate(made)
    ]


def run_finetune(folder: Path, options: dict) -> dict[str, object]:
    """Fine-tune; `stop_at` cancels at that step, on the last rank only."""
    stop_at, cancel, metrics = options.pop("stop_at", None), CancelToken(), []
    if options.pop("is_streamed", False):
        options["stream_folder"] = folder / "stream"

    def progress(report):
        if stop_at is not None and f"step {stop_at}," in report.detail:
            cancel.cancel()

    request = FinetuneRequest(
        output=folder / "model.safetensors", device="cpu", save_seconds=0.0, cache_folder=folder, **options
    )
    result = finetune(
        request,
        cases=cases(1),
        validation=cases(2)[1:],
        progress=progress,
        events=metrics.append,
        cancel=cancel,
    )
    return {
        "stopped": result.stopped,
        "steps": result.steps,
        "dice": dict(result.dice),
        "weights": read_tensors(request.output) if os.environ.get("RANK", "0") == "0" else {},
        "events": len(metrics),
    }


class DoubleTraining(BuiltinTraining):
    """The same in double precision."""

    def _new_trainer(self, networks: nn.ModuleDict) -> Trainer:
        for network in networks.double().values():
            network.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(), *inputs[1:]))
        return super()._new_trainer(networks)


def run_builtin(folder: Path, options: dict) -> dict[str, object]:
    """Train a built-in model for some steps.

    Dropout and noise in the network are off: their draws differ between ranks. Weights are in double precision: Adam
    divides by the size of a gradient, and where that is zero but for rounding, rounding would decide.
    """
    rule = SliceRule(framing="spacing", pixel_spacing_mm=6.0, context="adjacent", context_mm=12.0)
    task = replace(
        ABDOMEN,
        image_size=64,
        train_size=(32, 48),
        batch_size=options["batch_size"],
        full_size_every=2,
        full_size_batch=None,
        slices=rule,
        validation=("scan 1",),
    )
    banks = [
        build_slice_bank(case, slices=task.slices, intensity=task.intensity, image_size=task.image_size)
        for case in cases(2)
    ]
    training = DoubleTraining([task_data(task, banks, torch.device("cpu"))], Settings(minutes=1e3, rate=0.02))
    for module in training.trainer.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in {"label_noise", "embedding_noise"} & vars(module).keys():
            setattr(module, name, 0.0)
    state = folder / "builtin.training"
    if ranks.from_first(state.is_file):
        training.resume(state)
    while training.trainer.steps < options["steps"]:
        training.step()
    training.settings = replace(training.settings, minutes=1e-9)
    result = train(training, state)
    return {
        "steps": training.trainer.steps,
        "dice": result[task.id].dice,
        "weights": training.trainer.average.network.state_dict(),
        "network": training.trainer.network.state_dict(),
        "draws": training.trainer.generator.get_state(),
    }


def main() -> None:
    """Train, and write what this rank holds."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    mode = options.pop("mode")
    try:
        if mode == "finetune":
            found = run_finetune(folder, options)
        else:
            with ranks.joined("cpu"):
                found = run_builtin(folder, options)
    except HSAMSegmentError as error:
        found = {"error": str(error)}
    torch.save(found, folder / f"rank-{os.environ.get('RANK', '0')}.pt")


if __name__ == "__main__":
    main()
