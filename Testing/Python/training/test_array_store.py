"""Scans and slices in files instead of in memory: the same training, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_disk import fill, mounted_disk
from untrained_model import write_untrained_model

from HSAMSegmentLib.errors import OutputError
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.rules import IntensityRule, SliceRule
from HSAMSegmentLib.training.data.batches import gather
from HSAMSegmentLib.training.data.cases import make_case
from HSAMSegmentLib.training.data.sampling import Item
from HSAMSegmentLib.training.data.slice_bank import ArrayStore, build_slice_bank
from HSAMSegmentLib.training.finetune import finetune
from HSAMSegmentLib.training.request import FinetuneRequest
from HSAMSegmentLib.weights.bundle import read_tensors
from recipes.task_data import SlicesOnDevice, SlicesOnDisk

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def case():
    return make_case(*abdomen_phantom(geometry=phantom_geometry(size=(60, 60, 20), spacing_mm=(5.5, 5.5, 12.0))))


def bank_of(case):
    rule = SliceRule(framing="spacing", pixel_spacing_mm=6.0, context="adjacent", context_mm=12.0)
    return build_slice_bank(case, slices=rule, intensity=IntensityRule(), image_size=64)


def test_arrays_come_back_from_files_that_are_removed_at_the_end(case, tmp_path):
    store = ArrayStore(tmp_path)
    stored = store.case(case)
    assert isinstance(stored.volume.array, np.memmap)
    assert np.array_equal(stored.volume.array, case.volume.array)
    assert np.array_equal(stored.labels, case.labels)
    count = len(list(store.folder.iterdir()))
    assert store.case(stored).labels is stored.labels
    assert len(list(store.folder.iterdir())) == count == 2
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_streamed_slices_are_those_in_memory(case, tmp_path):
    store, bank = ArrayStore(tmp_path), bank_of(case)
    stored = store.bank(bank)
    items = [Item(0, 0, 0), Item(0, 19, 0), Item(0, 7, 0)]
    in_memory, on_disk = SlicesOnDevice([bank], torch.device("cpu")), SlicesOnDisk([stored], torch.device("cpu"))
    for found, streamed, expected in zip(in_memory.gather(items), on_disk.gather(items), gather([bank], items)):
        assert torch.equal(streamed, expected)
        assert torch.equal(found, expected)
    assert torch.equal(in_memory.centers_px, on_disk.centers_px)
    store.close()


@pytest.mark.slow
def test_a_streamed_training_is_that_in_memory_bit_by_bit(case, tmp_path):
    weights = []
    for stream in (None, tmp_path / "stream"):
        folder = tmp_path / ("memory" if stream is None else "disk")
        folder.mkdir()
        request = FinetuneRequest(
            output=folder / "model.safetensors",
            start_from=str(write_untrained_model(folder / "start.safetensors")),
            adaptation="full",
            head="linear",
            epochs=1,
            device="cpu",
            stream_folder=stream,
        )
        finetune(request, cases=[replace(case)])
        weights.append(read_tensors(request.output))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert list((tmp_path / "stream").iterdir()) == []


def test_a_full_disk_is_one_sentence(case, tmp_path):
    with mounted_disk(tmp_path / "disk", megabytes=1) as disk:
        store = ArrayStore(disk)
        fill(disk)
        with pytest.raises(OutputError, match="Keeping slices on the disk needs"):
            store.case(case)
        store.close()
