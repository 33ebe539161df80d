"""Requests for background teaching: small cases as the scene hands them over, in a course of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_cases import ABDOMEN_NAMES, small_volume

from HSAMSegmentLib.labels.terminology import label_set_of
from HSAMSegmentLib.workflows.finetune.finetune_request import LayerInput, OrganInput, TeachCase, TeachJobRequest
from HSAMSegmentLib.workflows.finetune.training_run import Course
from HSAMSegmentLib.workflows.inputs import VolumeInput

SMALL_LABELS = label_set_of({1: ABDOMEN_NAMES[1], 2: ABDOMEN_NAMES[2]})


def layered_case(folder: Path, data_folder: Path, name: str = "chaos_t2_02") -> TeachCase:
    """Fourteen small slices with liver and right kidney, as arrays in a folder."""
    volume, labels = small_volume(data_folder, name)
    np.save(folder / f"{name}-scan.npy", volume.array)
    np.save(folder / f"{name}-labels.npy", labels)
    scan = VolumeInput(array_file=str(folder / f"{name}-scan.npy"), geometry=volume.geometry, name=name, modality="MR")
    organs = (OrganInput("liver", "liver", 0, 1), OrganInput("right kidney", "right kidney", 0, 2))
    return TeachCase(scan, organs, layers=(LayerInput(str(folder / f"{name}-labels.npy"), volume.geometry),))


def small_request(parent: Path, data_folder: Path, **changes) -> TeachJobRequest:
    """A teaching of a few seconds, in a new course that has all it needs."""
    course = Course.create(parent, "small")
    request = TeachJobRequest(
        folder=str(course.folder),
        cases=(layered_case(course.folder, data_folder),),
        labels=SMALL_LABELS,
        model_id="small",
        title="Small model",
        minutes=0.2,
        device="cpu",
        store_folder=str(parent / "store"),
    )
    request = replace(request, **changes)
    course.write_request(request)
    return request
