"""One augmented view per slice: all slices of a batch on one sampling grid each, against MONAI's transforms.

MONAI's chain does the same to a slice: rotation, scale, shift and elastic deformation in one resampling, then contrast,
bias field, noise and blur. It takes one slice at a time. Seconds are those of the processor, on one thread.

    python Testing/Benchmarks/bench_augment.py --sizes 256 512
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from HSAMSegmentLib.training.data.augment import AugmentRule, augment

BATCH = 4


def monai_chain() -> Callable[[dict], dict]:
    """What `AugmentRule` describes, in MONAI's words."""
    from monai.transforms import (
        Compose,
        Rand2DElasticd,
        RandAdjustContrastd,
        RandBiasFieldd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
    )

    return Compose(
        [
            Rand2DElasticd(
                keys=("image", "label"),
                spacing=(32, 32),
                magnitude_range=(0, 3),
                prob=1.0,
                rotate_range=math.radians(15),
                scale_range=0.2,
                translate_range=8,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandAdjustContrastd(keys="image", prob=1.0, gamma=(0.7, 1.5)),
            RandScaleIntensityd(keys="image", factors=0.25, prob=1.0),
            RandBiasFieldd(keys="image", prob=1.0, coeff_range=(0.0, 0.15)),
            RandGaussianSmoothd(keys="image", prob=0.15),
            RandGaussianNoised(keys="image", prob=1.0, std=0.05),
        ]
    )


def seconds_per_view(work: Callable[[], object], rounds: int) -> float:
    """Of the fastest round."""
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent) / BATCH


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chain, generator = monai_chain(), torch.Generator().manual_seed(0)
    for size in options.sizes:
        images = torch.rand(BATCH, 3, size, size)
        labels = torch.randint(0, 5, (BATCH, size, size), dtype=torch.uint8)
        ours = seconds_per_view(
            lambda images=images, labels=labels, size=size: augment(
                images, labels, AugmentRule(), size=(size, size), generator=generator
            ),
            options.rounds,
        )
        theirs = seconds_per_view(
            lambda images=images, labels=labels: [
                chain({"image": image, "label": label[None]}) for image, label in zip(images, labels)
            ],
            options.rounds,
        )
        print(
            f"{size} px: ours {1000 * ours:.1f} ms per view, MONAI's {1000 * theirs:.1f} ms: {theirs / ours:.1f} times"
        )


if __name__ == "__main__":
    main()
