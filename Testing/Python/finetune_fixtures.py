"""Requests for background fine-tuning: small cases as the scene hands them over, in a training run of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_cases import ABDOMEN_NAMES, small_volume

from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.labels.layered_segmentation import LayerInput
from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.training.request import FinetuneCase, FinetuneRequest, OrganInput
from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun

SMALL_LABELS = label_set_of({1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]})


def layered_case(folder: Path, data_folder: Path, name: str = "chaos_t2_02") -> FinetuneCase:
    """Fourteen small slices with liver and right kidney, as arrays in a folder."""
    volume, labels = small_volume(data_folder, name)
    np.save(folder / f"{name}-scan.npy", volume.array)
    np.save(folder / f"{name}-labels.npy", labels)
    scan = VolumeInput(array_file=str(folder / f"{name}-scan.npy"), geometry=volume.geometry, name=name, modality="MR")
    organs = (OrganInput("liver", "liver", 0, 1), OrganInput("right kidney", "right kidney", 0, 2))
    return FinetuneCase(scan, organs, layers=(LayerInput(str(folder / f"{name}-labels.npy"), volume.geometry),))


def small_request(parent: Path, data_folder: Path, **changes) -> FinetuneRequest:
    """A fine-tuning of a few seconds, in a new training run that has all it needs."""
    training_run = TrainingRun.create(parent, "small")
    request = FinetuneRequest(
        output=training_run.model_file("small"),
        cases=(layered_case(training_run.folder, data_folder),),
        labels=SMALL_LABELS,
        title="Small model",
        minutes=0.2,
        device="cpu",
        store_folder=str(parent / "store"),
    )
    request = replace(request, **changes)
    training_run.write_request(request)
    return request
