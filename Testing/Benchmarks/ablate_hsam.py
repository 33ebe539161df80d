"""What the parts of H-SAM bring when little is labeled: one network with each part left out, same steps, several seeds.

    python Testing/Benchmarks/ablate_hsam.py --output Scratch/ablation.jsonl

Trains on a tenth of the slices of the training scans of `abdomen-ct` at 2 mm pixels, from an encoder that has seen no
CT image, and segments the validation scans with default options. A run that the file already holds is not repeated;
`--table` prints means and standard deviations over the seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor, nn
from unet_from_scratch import as_model

from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.inference.predictor import Segmenter
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.heads.hsam_decoders import RefiningDecoder
from HSAMSegmentLib.models.heads.sam_decoder import DecoderOutput, HypernetworkMlp, read_masks
from HSAMSegmentLib.models.interface import SegmentationNetwork
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.training.data.sampling import BalancedSampler
from HSAMSegmentLib.training.loop.trainer import Objective, Trainer
from HSAMSegmentLib.weights.loading import load_model
from recipes.builtin_tasks import ABDOMEN_CT, HEAD_OPTIONS, BuiltinTask, dataset_cases
from recipes.task_data import TaskData, dataset_case, read_task
from recipes.train_builtin import Settings, TaskBatches, loss_of_task

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SLICE_SHARE = 0.1
HSAM_ORGANS = (1, 2, 3, 4, 6, 7, 8, 11)
TASK = replace(
    ABDOMEN_CT,
    image_size=224,
    train_size=(112, 144),
    full_size_every=1,
    slices=replace(ABDOMEN_CT.slices, pixel_spacing_mm=2.0),
)


class WithoutMaskAttention(RefiningDecoder):
    """Tokens of the second stage look everywhere."""

    def _joined(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor | None,
        first_upscaled: Tensor,
        skips: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return super()._joined(image, image_pe, grid, None, first_upscaled, skips)  # type: ignore[arg-type]


class WithoutPixelDecoder(RefiningDecoder):
    """Masks of the second stage are read from its own embedding, at four times the resolution, as the first stage's."""

    def __init__(self, *, num_masks: int, embed_dim: int, **options: Any) -> None:
        super().__init__(num_masks=num_masks, embed_dim=embed_dim, **options)
        del self.skip_connect
        self.hypernetworks = nn.ModuleList(
            HypernetworkMlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=embed_dim // 8, num_layers=5)
            for _ in range(num_masks)
        )

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        grid: tuple[int, int],
        weights: Tensor,
        first_upscaled: Tensor,
        skips: Sequence[Tensor] = (),
    ) -> DecoderOutput:
        tokens, image = self.transformer(self.mask_tokens[None], image, image_pe, weights)
        upscaled = self.upscaling(image.unflatten(1, grid), skips[:2])
        return DecoderOutput(read_masks(self.hypernetworks, tokens, upscaled), tokens, tokens[:, 0], image, upscaled)

    def logits(self, *arguments: Any, **options: Any) -> Tensor:
        logits: Tensor = self(*arguments, **options).logits
        return logits


def architecture(head: str, form: str = "", **options: Any) -> Architecture:
    """The compact encoder with a head."""
    chosen = {**(HEAD_OPTIONS if head == "hsam" else {"mlp_dim": HEAD_OPTIONS["mlp_dim"]}), **options}
    return Architecture(EncoderSpec("compact", TASK.image_size), head, len(TASK.labels), form=form, options=chosen)


def with_decoder(decoder: type[RefiningDecoder]) -> SegmentationNetwork:
    """The paper's form with another second decoder."""
    network = build_network(architecture("hsam", "paper"))
    head: Any = network.head
    skips: Any = network.encoder.skip_channels
    head.decoder2 = decoder(
        num_masks=len(TASK.labels) + 1,
        embed_dim=head.decoder2.mask_tokens.shape[1],
        mlp_dim=HEAD_OPTIONS["mlp_dim"],
        dropout=HEAD_OPTIONS["dropout"],
        skip_channels=tuple(skips)[: 2 if decoder is WithoutPixelDecoder else None],
    )
    return network


VARIANTS: dict[str, Callable[[], SegmentationNetwork]] = {
    "one decoder (SAMed)": lambda: build_network(architecture("samed")),
    "two stages, form released": lambda: build_network(architecture("hsam", "released")),
    "two stages, form paper": lambda: build_network(architecture("hsam", "paper")),
    "paper, without class-balanced noise": lambda: build_network(architecture("hsam", "paper", label_noise=0.0)),
    "paper, without mask cross-attention": lambda: with_decoder(WithoutMaskAttention),
    "paper, without hierarchical pixel decoder": lambda: with_decoder(WithoutPixelDecoder),
}


def few_slices(data: TaskData, seed: int) -> TaskData:
    """The same data with a random tenth of the slices to draw from."""
    sampler = data.sampler
    assert isinstance(sampler, BalancedSampler)
    order = torch.randperm(len(sampler), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = [sampler.items[index] for index in order[: round(SLICE_SHARE * len(sampler))]]
    return replace(data, sampler=sampler.only(chosen))


def trained(variant: str, data: TaskData, steps: int, seed: int, start: str) -> SegmentationNetwork:
    """Train a variant for some steps and return its averaged weights."""
    torch.manual_seed(seed)
    network = VARIANTS[variant]()
    network.encoder.load_state_dict(load_model(start).network.encoder.state_dict())
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = Settings(minutes=0.0, seed=seed)
    trainer = Trainer(
        network, rate=settings.rate, seed=seed, device=torch.device("cpu"), average_decay=0.99, warmup_steps=50
    )
    objective = Objective(TaskBatches(data, network, settings, lambda: trainer.steps), loss_of_task(TASK))
    for step in range(steps):
        trainer.step([objective], step / steps)
    averaged: SegmentationNetwork = trainer.average.network
    return averaged.eval()


def judged(network: SegmentationNetwork, task: BuiltinTask, threads: int) -> dict[str, list[list[float]]]:
    """Dice and HD95 in mm of each validation scan and structure; NaN where the structure is in neither."""
    model = as_model(network, task, task.prediction)
    segmenter = Segmenter(model, device="cpu", options=SegmentOptions(threads=threads, precision="full"))
    found: dict[str, list[list[float]]] = {"dice": [], "hd95": []}
    for entry in dataset_cases(DATA / task.folder):
        if entry.id not in task.validation:
            continue
        case = dataset_case(entry, task)
        labels = segmenter.segment(case.volume).segmentation.array
        truth = Segmentation(case.labels, case.volume.geometry, case.label_set, "truth")
        comparison = compare(Segmentation(labels, case.volume.geometry, case.label_set), truth)
        by_name = {score.name: score for score in comparison.scores}
        for metric, values in found.items():
            scores = (getattr(by_name[name], metric) for name in task.labels)
            values.append([float("nan") if score is None else score for score in scores])
    return found


def print_table(runs: list[dict[str, Any]]) -> None:
    """Means and standard deviations over the seeds, in Markdown."""
    print(
        "| network | parameters of the head | 8 organs | 13 structures | HD95 (mm) | seeds |\n|---|---|---|---|---|---|"
    )
    for variant in VARIANTS:
        mine = [run for run in runs if run["variant"] == variant]
        if not mine:
            continue
        organs = [value - 1 for value in HSAM_ORGANS]
        eight = [float(np.nanmean(np.array(run["dice"])[:, organs])) for run in mine]
        whole = [float(np.nanmean(run["dice"])) for run in mine]
        hd95 = [float(np.nanmean(run["hd95"])) for run in mine]
        columns = [
            f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"
            for values, digits in ((eight, 3), (whole, 3), (hd95, 1))
        ]
        print(f"| {variant} | {mine[0]['parameters']:,} | {' | '.join(columns)} | {len(mine)} |")


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one for each run")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--start", default="cardiac-mr-bssfp", help="model whose encoder is taken")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table and train nothing")
    options = parser.parse_args()
    runs = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    if options.table:
        print_table(runs)
        return
    torch.set_num_threads(options.threads)
    data = read_task(TASK, DATA, torch.device("cpu"))
    for seed in options.seeds:
        for variant in VARIANTS:
            if any((run["variant"], run["seed"], run["steps"]) == (variant, seed, options.steps) for run in runs):
                continue
            began = time.monotonic()
            network = trained(variant, few_slices(data, seed), options.steps, seed, options.start)
            minutes = (time.monotonic() - began) / 60
            run = {
                "variant": variant,
                "seed": seed,
                "steps": options.steps,
                "minutes": minutes,
                "parameters": sum(item.numel() for item in network.head.parameters()),
                **judged(network, TASK, options.threads),
            }
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
            print(f"{variant}, seed {seed}: {np.nanmean(run['dice']):.3f}, {minutes:.1f} min", flush=True)


if __name__ == "__main__":
    main()
