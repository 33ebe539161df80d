"""Dice and HD95 of the averaged weights of a training on scans of any data set with the same structures.

    python Testing/Benchmarks/evaluate_training.py --task abdomen-mr-without-ct --state Scratch/without-ct.training \
        --like Scratch/abdomen-mr-t2.safetensors --judge abdomen-mr --folder ct_btcv

`--judge` is the task whose data sets have the scans, with their label names. Options are those of the model `--like`,
whose weights are replaced. Scans that the training has used are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.training.loop.checkpointer import load_state
from HSAMSegmentLib.weights.loading import LoadedModel, load_model
from recipes.builtin_tasks import dataset_cases, tasks_of
from recipes.task_data import case_of_part, parts_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def trained_model(like: str, state: Path, task: str) -> tuple[LoadedModel, set[str]]:
    """A model with the averaged weights of a training, and the names of the scans that it has seen."""
    model, content = load_model(like), load_state(state)
    start = f"{task}."
    weights = {name[len(start) :]: value for name, value in content["average"].items() if name.startswith(start)}
    model.network.load_state_dict(weights)
    return model, set(content["taught"][task])


def main() -> None:
    """Print a line for each scan, and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", required=True, help="ID of the task that was trained")
    parser.add_argument("--state", type=Path, required=True, help="of the training")
    parser.add_argument("--like", required=True, help="model ID or file with the same network")
    parser.add_argument("--judge", required=True, help="ID of the task that has the scans")
    parser.add_argument("--folder", required=True, help="data set of these scans")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    (task,) = tasks_of([options.judge])
    (part,) = (part for part in parts_of(task) if part.folder == options.folder)
    model, seen = trained_model(options.like, options.state, options.task)
    segmenter = Segmenter(model, device="cpu", options=SegmentOptions(threads=options.threads))
    scores = []
    for entry in dataset_cases(DATA / part.folder):
        if entry.id in seen:
            continue
        case = case_of_part(entry, part, task)
        found = segmenter.segment(case.volume).segmentation
        truth = Segmentation(case.labels, case.volume.geometry, model.manifest.labels, "truth")
        scores.append([(score.dice, score.hd95) for score in compare(found, truth).scores])
        print(entry.id, " ".join(f"{dice:.3f}" for dice, _hd95 in scores[-1]), flush=True)
    means = np.nanmean(np.array(scores, dtype=float), axis=0)
    names = ", ".join(f"{label.name} {dice:.3f}" for label, (dice, _hd95) in zip(model.manifest.labels, means))
    print(f"{len(scores)} scans: Dice {means[:, 0].mean():.4f}, HD95 {means[:, 1].mean():.1f} mm ({names})")


if __name__ == "__main__":
    main()
