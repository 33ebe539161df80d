"""One labelled scan: what adaptation is worth, in Dice on held-out scans, for the same minutes.

Each line teaches from the same scan and is judged on scans that nobody saw. "average map" looks at no image: the most
frequent label of each pixel and relative slice of the taught scan.

    python Scripts/train_embedded.py --without cardiac-mr-bssfp --state Scratch/unseen.training --minutes 12
    python Testing/Benchmarks/bench_few_shot.py --task cardiac-mr-bssfp --start MODEL --ways unet scratch full

"unet" is MONAI's BasicUNet from scratch. A start that is to prove anything has not seen the data set.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from unet_from_scratch import references, unet_from_scratch

from HSAMSegmentLib.checkpoints.loading import load_model
from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.segmenter import Segmenter
from HSAMSegmentLib.training.cases import Case
from HSAMSegmentLib.training.embedded import dataset_case
from HSAMSegmentLib.training.embedded_tasks import TASKS, EmbeddedTask, dataset_cases
from HSAMSegmentLib.training.request import TeachRequest
from HSAMSegmentLib.training.teach import teach
from HSAMSegmentLib.volumes.volume import Segmentation

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def read(task: EmbeddedTask, names: list[str]) -> list[Case]:
    """Scans by their ids."""
    entries = {entry.id: entry for entry in dataset_cases(DATA / task.folder)}
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


def average_map(taught: Case, held: list[Case]) -> list[np.ndarray]:
    """The taught scan's own labels, stretched along the slices."""
    found = []
    for case in held:
        depth = case.labels.shape[0]
        source = np.round(np.linspace(0, taught.labels.shape[0] - 1, depth)).astype(int)
        found.append(taught.labels[source])
    return found


def unet_way(task: EmbeddedTask, options: argparse.Namespace, taught: list[Case], held: list[Case]) -> str:
    """MONAI's BasicUNet for the same minutes; Dice over the whole stacks, which does not depend on their order."""
    found = unet_from_scratch(task, taught, held, options.minutes)
    values = [
        2.0
        * np.count_nonzero((labels == value) & (truth == value))
        / max(1, np.count_nonzero(labels == value) + np.count_nonzero(truth == value))
        for labels, truth in zip(found, references(task, held))
        for value in range(1, len(task.labels) + 1)
    ]
    return f"mean Dice {float(np.mean(values)):.3f}"


def taught_way(way: str, options: argparse.Namespace, taught: list[Case], held: list[Case], folder: Path) -> str:
    """Teach in one way and judge."""
    request = TeachRequest(
        output=folder / f"{way}.safetensors",
        minutes=options.minutes,
        start_from=options.start if way != "scratch" else "scratch",
        encoder=options.encoder,
        adaptation="full" if way == "scratch" else way,
        device="cpu",
    )
    result = teach(request, cases=taught)
    segmenter = Segmenter(load_model(result.path), device="cpu", options=SegmentOptions(threads=options.threads))
    print(f"{way}: {result.steps} steps, {result.stopped}, {result.seconds / 60:.1f} min", flush=True)
    return judged([segmenter.segment(case.volume).segmentation.array for case in held], held)


def taught_names(task: EmbeddedTask, options: argparse.Namespace) -> list[str]:
    """Ids of the scans to teach from: those named, those of a support set of the data set, or its first one."""
    if options.support:
        index = json.loads((DATA / task.folder / "dataset.json").read_text(encoding="utf-8"))
        return index["support_sets"][options.support]
    return options.taught or [dataset_cases(DATA / task.folder)[0].id]


def main() -> None:
    """Teach in every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[task.id for task in TASKS], default="cardiac-mr-bssfp")
    parser.add_argument("--taught", nargs="+", default=None, help="ids of the scans; default: the first of the set")
    parser.add_argument("--support", help="teach from a support set that dataset.json names, such as hsam_4_scans")
    parser.add_argument("--start", default="abdomen-mr-t2", help="model whose encoder is taken")
    parser.add_argument("--encoder", default="compact")
    parser.add_argument("--ways", nargs="+", default=["frozen", "full"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = next(item for item in TASKS if item.id == options.task)
    names = taught_names(task, options)
    taught, held = read(task, names), read(task, list(task.validation))
    if taught[0].labels.shape[1:] == held[0].labels.shape[1:]:
        print(f"average map: {judged(average_map(taught[0], held), held)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for way in options.ways:
            if way == "unet":
                found = unet_way(task, options, taught, held)
            else:
                found = taught_way(way, options, taught, held, Path(folder))
            print(f"{way}, {options.minutes:g} min, from {', '.join(names)}: {found}", flush=True)


if __name__ == "__main__":
    main()
