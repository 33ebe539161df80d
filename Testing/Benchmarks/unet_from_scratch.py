"""The reference of the few-shot benchmark: MONAI's BasicUNet from scratch, on the views that fine-tuning uses.

It gets the slices, sampler, window and loss of `finetune`, the views of trainings on many scans, and a rate that
falls: the wide views of few scans slow it down (Docs/finetuning.md).
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet
from torch import nn

from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.models.interface import StageLogits
from HSAMSegmentLib.preprocess.rules import PredictionRule
from HSAMSegmentLib.training.data.augment import AugmentRule, augment
from HSAMSegmentLib.training.data.batches import WHOLE_SLICE_SHARE, find_label_crop, gather
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.sampling import BalancedSampler
from HSAMSegmentLib.training.data.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.loop.losses import DICE_SMOOTHING, hsam_loss
from HSAMSegmentLib.training.loop.optimizer import GRADIENT_LIMIT, WeightAverage, cosine_share, set_rate
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.weights.manifest import EncoderSource, Manifest
from recipes.builtin_tasks import BuiltinTask

FEATURES = (24, 24, 48, 96, 192, 24)
RATE = 1e-3
BATCH = 4
WARMUP_STEPS = 20


class UNet(nn.Module):
    """BasicUNet with the interface of our networks."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.num_classes, self.image_size = num_classes, image_size
        self.other_planes = nn.ModuleDict()
        self.net = BasicUNet(2, 3, num_classes + 1, features=FEATURES)

    def forward(self, images: torch.Tensor) -> StageLogits:
        """Images [B, 3, S, S] to logits [B, K + 1, S, S]."""
        return StageLogits((self.net(images),))


def unet_from_scratch(task: BuiltinTask, training: list[Case], minutes: float, seed: int = 0) -> UNet:
    """Train for some minutes on the training scans."""
    torch.manual_seed(seed)
    banks = tuple(framed(case, task) for case in training)
    network = UNet(len(task.labels), task.image_size).to(memory_format=torch.channels_last)
    average = WeightAverage(network, decay=0.99)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    _train(network, average, optimizer, banks, task, 60.0 * minutes, seed)
    print(f"U-Net: {average.updates} steps", flush=True)
    return average.network.eval()


def as_model(network: UNet, task: BuiltinTask, prediction: PredictionRule) -> LoadedModel:
    """The network as a model that `Segmenter` takes; `task.slices` says how slices are framed."""
    manifest = Manifest(
        id="unet",
        title="U-Net",
        modality=task.modality,
        architecture=task.architecture,
        encoder_source=EncoderSource(included=True),
        intensity=task.intensity,
        slices=task.slices,
        prediction=prediction,
        labels=label_set_of(dict(enumerate(task.labels, start=1))),
        license=task.license,
    )
    return LoadedModel(network, manifest, Path("unet.safetensors"))


def framed(case: Case, task: BuiltinTask) -> SliceBank:
    """The slices of a scan as the task wants them."""
    return build_slice_bank(case, slices=task.slices, intensity=task.intensity, image_size=task.image_size)


def _train(network, average, optimizer, banks, task, seconds: float, seed: int) -> None:
    sampler = BalancedSampler(banks, num_classes=len(task.labels))
    focus = find_label_crop(banks, task.image_size)
    generator = torch.Generator().manual_seed(seed)
    rule = AugmentRule(rotation_degrees=20.0, scale=(0.8, 1.25), shift_px=6.0)
    started, step = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        step += 1
        share = (time.monotonic() - started) / seconds
        set_rate(optimizer, RATE * min(1.0, step / WARMUP_STEPS) * cosine_share(share))
        items = sampler.draw(BATCH, generator)
        size, centers = (task.image_size, task.image_size), None
        if focus is not None and float(torch.rand(1, generator=generator)) >= WHOLE_SLICE_SHARE:
            size, centers = focus.size, torch.tensor([focus.centers_px[item.bank] for item in items])
        images, labels = gather(banks, items)
        images, labels = augment(images, labels, rule, size=size, generator=generator, centers_px=centers)
        stages = network.train()(images.contiguous(memory_format=torch.channels_last)).stages
        loss = 2.0 * hsam_loss(stages, labels, last_weight=1.0, dice_weight=0.5, smoothing=DICE_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
        optimizer.step()
        average.update(network)
