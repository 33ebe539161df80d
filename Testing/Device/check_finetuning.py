"""Steps per second with a frozen and with a trained encoder, and peak memory against the panel's estimate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from bench_frozen_epoch import OneView, loss_of, training_set_of
from device_tools import Row, Setting, gib, peak_bytes, seconds

from HSAMSegmentLib.models.building import build_network
from HSAMSegmentLib.models.specification import Architecture, EncoderSpec
from HSAMSegmentLib.training.data.augment import AugmentRule
from HSAMSegmentLib.training.data.batches import LiveBatches
from HSAMSegmentLib.training.features.adaptation import FROZEN, FULL, SplitNetwork, set_trainable
from HSAMSegmentLib.training.features.cached_features import CachedFeatureBatches, CachedFeatures, CacheOptions
from HSAMSegmentLib.training.loop.trainer import Objective, Trainer
from HSAMSegmentLib.workflows.finetune.cost_estimate import estimate, footprint
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary

_STEPS = 20


def rows(setting: Setting) -> list[Row]:
    """Two rows for each way to learn."""
    sam = EncoderSpec("mobile_sam", 64) if setting.quick else EncoderSpec("sam_vit_b", 512)
    compact = EncoderSpec("compact", 64 if setting.quick else 256)
    return [*_rows_of(setting, sam, FROZEN), *_rows_of(setting, compact, FULL)]


def _rows_of(setting: Setting, encoder: EncoderSpec, adaptation: str) -> list[Row]:
    torch.manual_seed(0)
    slices = 8 if setting.quick else 24
    training_set = training_set_of(encoder.image_size, slices)
    classes = len(training_set.sampler.by_label)
    architecture = Architecture(encoder, "hsam", classes, form="paper")
    network = build_network(architecture)
    set_trainable(network, adaptation)
    network.to(setting.device, memory_format=torch.channels_last)
    title = f"{encoder.name} {encoder.image_size} px, {adaptation}"
    pace: list[float] = []

    def learn() -> None:
        trainer = Trainer(network, rate=1e-4, encoder_share=1.0, seed=0, device=setting.device)
        with tempfile.TemporaryDirectory() as folder:
            batches = _batches(setting, network, training_set, adaptation, Path(folder))
            objective = Objective(batches, loss_of("hsam"))
            count = 1 if setting.quick else _STEPS
            taken = seconds(setting, lambda: [trainer.step([objective], 0.5) for _ in range(count)], samples=1)
            pace.append(count / taken)
            batches.close()

    peak = peak_bytes(setting, learn)
    return [
        Row("finetuning", title, f"{pace[0]:.2f} steps/s of {training_set.batch_size} views"),
        Row("finetuning", f"{title}, peak memory on the device", f"{gib(peak)}; {_estimated(architecture, slices)}"),
    ]


def _batches(setting: Setting, network, training_set, adaptation: str, folder: Path):
    if adaptation == FULL:
        return LiveBatches(network, training_set, setting.device, AugmentRule)
    split = SplitNetwork(network.eval(), adaptation)
    rules = CacheOptions(capacity_bytes=1 << 30, parent=folder, limits=OneView())
    generator = torch.Generator().manual_seed(0)
    kept = CachedFeatures(split, training_set, (), setting.device, generator, rules)
    return CachedFeatureBatches(split, training_set, setting.device, kept)


def _estimated(architecture: Architecture, slices: int) -> str:
    """What the panel says for such a scan, and how much of it are networks and work (the rest is CUDA itself)."""
    case = CaseSummary("phantom", slices=slices, labeled_slices=slices, shape=(slices, 256, 256))
    parts = footprint([case], architecture, includes_encoder=False)
    said = estimate([case], architecture, includes_encoder=False, copied_bytes=0, minutes=10.0, scratch=Path("."))
    return f"the panel says {gib(said.gpu_bytes)}, of which {gib(parts.network_bytes + parts.working_bytes)} by torch"
