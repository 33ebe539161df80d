"""One labeled scan: what adaptation is worth, in Dice on held-out scans, for the same minutes.

Each line trains on the same scan and is judged on unseen scans. "average map" looks at no image: the most
frequent label of each pixel and relative slice of all scans that are not held out.

    python Scripts/train_builtin.py --without cardiac-mr-bssfp --state Scratch/unseen.training --minutes 12
    python Testing/Benchmarks/bench_few_shot.py --task cardiac-mr-bssfp --start MODEL --ways unet scratch full

"unet" is MONAI's BasicUNet from scratch; "full" and "frozen" fine-tune with the default head, "full:cnn" with another.
A start that is to prove anything has not seen the data set.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from unet_from_scratch import as_model, framed, unet_from_scratch

from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.finetune import finetune
from HSAMSegmentLib.training.recipe import prediction_rule
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.loading import LoadedModel, load_model
from recipes.builtin_tasks import ABDOMEN_CT, TASKS, BuiltinTask, dataset_cases
from recipes.task_data import case_of_part, dataset_case

RELATIVE_SLICES = 32
CT_ORGANS = replace(
    ABDOMEN_CT,
    id="abdomen-ct-8",
    labels=("spleen", "right kidney", "left kidney", "gallbladder", "liver", "stomach", "aorta", "pancreas"),
)
"""The organs of H-SAM's benchmark."""
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def read(task: BuiltinTask, names: list[str]) -> list[Case]:
    """Scans by their ids."""
    entries = {entry.id: entry for entry in dataset_cases(DATA / task.folder)}
    if task is CT_ORGANS:
        return [case_of_part(entries[name], ABDOMEN_CT, task) for name in names]
    return [dataset_case(entries[name], task) for name in names]


def judged(found: list[np.ndarray], held: list[Case]) -> str:
    """Means over scans and structures, as a line."""
    comparisons = []
    for labels, case in zip(found, held):
        truth = Segmentation(case.labels, case.volume.geometry, case.label_set, "truth")
        comparisons.append(compare(Segmentation(labels, case.volume.geometry, case.label_set), truth))
    dice, jaccard, hd95, asd = (
        float(np.mean([item.mean(metric) for item in comparisons])) for metric in ("dice", "jaccard", "hd95", "asd")
    )
    return f"mean Dice {dice:.3f}, Jaccard {jaccard:.3f}, HD95 {hd95:.2f} mm, ASD {asd:.2f} mm"


def average_map(task: BuiltinTask, held: list[Case]) -> list[np.ndarray]:
    """The most frequent label in the scans that are not held out, at the same place of the frame and of the stack."""
    names = [entry.id for entry in dataset_cases(DATA / task.folder) if entry.id not in task.validation]
    counts = sum(_label_counts(framed(case, task).labels[:, 0], len(task.labels)) for case in read(task, names))
    found = []
    for bank in (framed(case, task) for case in held):
        nearest = torch.linspace(0, RELATIVE_SLICES - 1, len(bank)).round().long()
        found.append(bank.framing.logits(counts[nearest]).argmax(dim=1).numpy())
    return found


def _label_counts(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Labels [n, S, S] as one-hot [RELATIVE_SLICES, K + 1, S, S], the nearest slice at each relative place."""
    nearest = torch.linspace(0, len(labels) - 1, RELATIVE_SLICES).round().long()
    return torch.nn.functional.one_hot(labels[nearest].long(), num_classes + 1).permute(0, 3, 1, 2).float()


def unet_way(task: BuiltinTask, options: argparse.Namespace, training: list[Case], held: list[Case]) -> str:
    """MONAI's BasicUNet for the same minutes, read in one view with all its pieces and as `finetune`'s models are."""
    network = unet_from_scratch(task, training, options.minutes, seed=options.seed)
    plain = as_model(network, task, PredictionRule())
    as_finetuned = as_model(network, task, prediction_rule(task.architecture, len(training)))
    everything = PostprocessOptions(largest_piece=False, fill_holes=False, minimum_ml=0.0)
    return (
        f"in one view, all pieces: {segmented(plain, options, held, postprocess=everything)}; "
        f"as fine-tuned models are read: {segmented(as_finetuned, options, held)}"
    )


def segmented(model: LoadedModel, options: argparse.Namespace, held: list[Case], **changes) -> str:
    """Segment the held-out scans and judge."""
    segmenter = Segmenter(model, device="cpu", options=SegmentOptions(threads=options.threads, **changes))
    return judged([segmenter.segment(case.volume).segmentation.array for case in held], held)


def stack_dice(found: list[np.ndarray], task: BuiltinTask, held: list[Case]) -> str:
    """Mean Dice of label stacks that lie as the slices of the framed scans do."""
    values = [
        2.0
        * np.count_nonzero((labels == value) & (truth == value))
        / max(1, np.count_nonzero(labels == value) + np.count_nonzero(truth == value))
        for labels, truth in zip(found, (framed(case, task).reference.numpy() for case in held))
        for value in range(1, len(task.labels) + 1)
    ]
    return f"mean Dice {float(np.mean(values)):.3f}"


def finetuned_way(way: str, options: argparse.Namespace, training: list[Case], held: list[Case], folder: Path) -> str:
    """Fine-tune in one way, such as "full" or "frozen:cnn", and judge."""
    adaptation, _, head = way.partition(":")
    request = FinetuneRequest(
        output=folder / f"{adaptation}{head}.safetensors",
        minutes=options.minutes,
        start_from=options.start if adaptation != "scratch" else "scratch",
        encoder=options.encoder,
        head=head,
        adaptation="full" if adaptation == "scratch" else adaptation,
        device="cpu",
        seed=options.seed,
    )
    result = finetune(request, cases=training)
    print(f"{way}: {result.steps} steps, {result.stopped}, {result.seconds / 60:.1f} min", *result.notes, sep="\n  ")
    return segmented(load_model(result.path), options, held)


def training_names(task: BuiltinTask, options: argparse.Namespace) -> list[str]:
    """Ids of the scans to train on: those named, those of a support set of the data set, or its first one."""
    if options.support:
        index = json.loads((DATA / task.folder / "dataset.json").read_text(encoding="utf-8"))
        return index["support_sets"][options.support]
    return options.training or [dataset_cases(DATA / task.folder)[0].id]


def main() -> None:
    """Fine-tune in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[task.id for task in (*TASKS, CT_ORGANS)], default="cardiac-mr-bssfp")
    parser.add_argument("--training", nargs="+", default=None, help="ids of the scans; default: the first of the set")
    parser.add_argument("--support", help="train on a support set that dataset.json names, such as hsam_4_scans")
    parser.add_argument("--start", default="abdomen-mr", help="model whose encoder is taken")
    parser.add_argument("--encoder", default="compact")
    parser.add_argument("--ways", nargs="+", default=["frozen", "full"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = next(item for item in (*TASKS, CT_ORGANS) if item.id == options.task)
    names = training_names(task, options)
    training, held = read(task, names), read(task, list(task.validation))
    print(f"average map: {stack_dice(average_map(task, held), task, held)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for way in options.ways:
            if way == "unet":
                found = unet_way(task, options, training, held)
            else:
                found = finetuned_way(way, options, training, held, Path(folder))
            print(f"{way}, {options.minutes:g} min, seed {options.seed}, from {', '.join(names)}: {found}", flush=True)


if __name__ == "__main__":
    main()
