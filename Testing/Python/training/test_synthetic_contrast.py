"""Random contrast from label maps: structures keep their place, and lose everything but their place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.rules import SliceRule
from HSAMSegmentLib.training.data.sampling import Item
from HSAMSegmentLib.training.data.slice_bank import ArrayStore
from recipes.builtin_tasks import ABDOMEN, BuiltinTask, DataSource
from recipes.synthetic_contrast import (
    AIR,
    ContrastRule,
    hollow_structures,
    randomize_contrast,
    tissue_maps,
    tissue_means,
)
from recipes.task_data import read_task
from recipes.train_builtin import Settings, TaskBatches

CPU = torch.device("cpu")
ALWAYS = {
    "synthetic": ContrastRule(synthetic_probability=1.0, curve_probability=0.0, band_probability=0.0),
    "curve": ContrastRule(synthetic_probability=0.0, curve_probability=1.0, band_probability=0.0),
    "all of it": ContrastRule(
        synthetic_probability=1.0,
        curve_probability=0.0,
        band_probability=0.0,
        narrow_probability=0.5,
        ordered_probability=0.5,
        patches=0.1,
        smooth_probability=0.5,
        is_stretched=True,
    ),
    "band": ContrastRule(synthetic_probability=0.0, curve_probability=0.0, band_probability=1.0),
}
NEVER = ContrastRule(synthetic_probability=0.0, curve_probability=0.0, band_probability=0.0)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def disks():
    """Two structures of clearly different intensity on a gray body, air around it."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    labels = torch.zeros(3, 64, 64, dtype=torch.uint8)
    labels[:, (rows - 24) ** 2 + (columns - 24) ** 2 < 64] = 1
    labels[:, (rows - 40) ** 2 + (columns - 40) ** 2 < 64] = 2
    body = ((rows - 32) ** 2 + (columns - 32) ** 2 < 900).float() * 0.4
    noise = 0.02 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(5))
    images = torch.where(labels == 1, 0.8, torch.where(labels == 2, 0.2, body)) + noise
    return images, labels


def randomized(images, labels, rule, seed=0):
    tissues = tissue_maps(images, labels, clusters=rule.clusters)
    means = tissue_means(images, tissues, rule.clusters + 2)
    generator = torch.Generator().manual_seed(seed)
    return randomize_contrast(images[None], tissues[None], means[None], rule, generator)[0], tissues


def test_tissues_are_numbered_from_the_darkest_and_structures_come_last(disks):
    images, labels = disks
    tissues = tissue_maps(images, labels, clusters=4)
    means = tissue_means(images, tissues, 6)
    assert torch.equal(tissues == 4, labels == 1)
    assert torch.equal(tissues == 5, labels == 2)
    present = [value for value in range(4) if (tissues == value).any()]
    assert present[0] == AIR
    assert means[present].tolist() == sorted(means[present].tolist())
    assert means[4] == pytest.approx(0.81, abs=0.01)


@pytest.mark.parametrize("kind", ALWAYS)
def test_contrast_changes_within_the_range_and_the_same_seed_draws_the_same(disks, kind):
    first, _ = randomized(*disks, ALWAYS[kind])
    again, _ = randomized(*disks, ALWAYS[kind])
    other, _ = randomized(*disks, ALWAYS[kind], seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, disks[0])
    assert float(first.min()) >= 0.0
    assert float(first.max()) <= 1.0


def test_real_views_stay_as_they_are(disks):
    assert torch.equal(randomized(*disks, NEVER)[0], disks[0])


def test_either_structure_may_be_the_brighter_one(disks):
    images, labels = disks
    brighter = set()
    for seed in range(12):
        drawn, _ = randomized(images, labels, ALWAYS["synthetic"], seed)
        brighter.add(bool(drawn[labels == 1].mean() > drawn[labels == 2].mean()))
    assert brighter == {True, False}


def test_tissues_without_a_label_may_pass_into_each_other_without_steps(disks):
    ramp = torch.linspace(0.1, 0.9, 64).expand(3, 64, 64).contiguous()
    labels = torch.zeros_like(disks[1])
    rule = replace(ALWAYS["synthetic"], noise=0.0, texture=(0.0, 0.0), dark_air_probability=0.0)
    steps = {}
    for probability in (0.0, 1.0):
        drawn, _ = randomized(ramp, labels, replace(rule, smooth_probability=probability), seed=2)
        steps[probability] = float(drawn[:, :, 4:-4].diff(dim=-1).abs().max())
    assert steps[1.0] < steps[0.0] / 2


def test_a_narrow_band_brings_structures_together_and_stretching_gives_the_range_back(disks):
    images, labels = disks
    plain = replace(ALWAYS["synthetic"], noise=0.0, dark_air_probability=0.0)
    narrow = replace(plain, narrow_probability=1.0)

    def distances(rule):
        views = [randomized(images, labels, rule, seed)[0] for seed in range(20)]
        return sum(float((view[labels == 1].mean() - view[labels == 2].mean()).abs()) for view in views)

    assert distances(narrow) < 0.7 * distances(plain)
    for seed in range(10):
        stretched, _ = randomized(images, labels, replace(narrow, is_stretched=True), seed)
        assert float(stretched.max()) > 0.5
        assert float(stretched.min()) < 0.05


def test_a_structure_that_becomes_a_lung_is_as_dark_as_air_and_loses_its_label(disks):
    images, labels = disks
    rule = ContrastRule(lung_probability=1.0, lung_labels=(1,))
    tissues = tissue_maps(images, labels, clusters=rule.clusters)
    generator = torch.Generator().manual_seed(0)
    changed, left = hollow_structures(images[None], labels[None, 1], tissues[None], rule, generator)
    assert float(changed[0][labels == 1].max()) < 0.2
    assert torch.equal(changed[0][labels != 1], images[labels != 1])
    assert set(torch.unique(left).tolist()) == {0, 2}
    assert torch.equal(left[0] == 2, labels[1] == 2)
    never = replace(rule, lung_probability=0.0)
    same = hollow_structures(images[None], labels[None, 1], tissues[None], never, generator)
    assert torch.equal(same[0][0], images)
    assert torch.equal(same[1][0], labels[1])


@pytest.mark.parametrize("kind", ["synthetic", "curve"])
def test_structures_are_never_as_dark_as_air(disks, kind):
    rule = replace(ALWAYS[kind], darkest_structure=0.15)
    for seed in range(10):
        drawn, _ = randomized(*disks, rule, seed)
        assert float(drawn[disks[1] > 0].min()) >= 0.15


def write_data_set(folder: Path, seeds, names: dict[int, str]) -> None:
    """A data set of phantoms with label values of its own."""
    geometry = phantom_geometry(size=(48, 48, 12), spacing_mm=(7.0, 7.0, 16.0))
    cases = []
    for seed in seeds:
        volume, segmentation = abdomen_phantom(seed=seed, geometry=geometry)
        values = {label.name: label.value for label in segmentation.labels}
        array = segmentation.array * 0
        for value, name in names.items():
            array[segmentation.array == values.get(name, 250)] = value
        case = f"{folder.name}_{seed}"
        folder.mkdir(exist_ok=True)
        sitk.WriteImage(image_of(volume.array, geometry), str(folder / f"{case}.nii.gz"))
        sitk.WriteImage(image_of(array, geometry), str(folder / f"{case}_labels.nii.gz"))
        cases.append({"id": case, "image": f"{case}.nii.gz", "label": f"{case}_labels.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"cases": cases}))


@pytest.fixture
def two_sets(tmp_path) -> BuiltinTask:
    names = dict(enumerate(ABDOMEN.labels, start=1))
    write_data_set(tmp_path / "first", (0, 1), names)
    other = {1: "spleen", 2: "not a structure of the task", 3: "liver"}
    write_data_set(tmp_path / "second", (2, 3), other)
    rule = SliceRule(framing="spacing", pixel_spacing_mm=7.0, context="adjacent", context_mm=16.0)
    return replace(
        ABDOMEN,
        folder="first",
        image_size=48,
        slice_size=64,
        train_size=(32, 32),
        batch_size=4,
        slices=rule,
        validation=("first_1", "second_3"),
        sources=(DataSource("second", tuple(other.values())),),
        contrast=ContrastRule(clusters=4),
    )


def test_two_data_sets_share_the_batch_and_speak_the_labels_of_the_task(two_sets, tmp_path):
    data = read_task(two_sets, tmp_path, CPU)
    assert data.scans == ("first_0", "second_2")
    drawn = data.sampler.draw(4, torch.Generator().manual_seed(0))
    assert sorted(item.bank for item in drawn) == [0, 0, 1, 1]
    second = data.validation[1].bank
    assert set(torch.unique(second.labels).tolist()) == {0, ABDOMEN.labels.index("liver") + 1, 4}
    batches = TaskBatches(data, torch.nn.Identity(), Settings(minutes=1), lambda: 1)
    images, labels = batches.draw(torch.Generator().manual_seed(0))
    assert images.shape == (4, 3, 32, 32)
    assert labels.shape == (4, 32, 32)


def test_a_streamed_task_draws_what_it_draws_in_memory_and_holds_no_scan(two_sets, tmp_path):
    batches = []
    for store in (None, ArrayStore(tmp_path / "stream")):
        data = read_task(two_sets, tmp_path, CPU, store)
        made = TaskBatches(data, torch.nn.Identity(), Settings(minutes=1), lambda: 1)
        generator = torch.Generator().manual_seed(3)
        batches.append([made.draw(generator) for _ in range(3)])
    for in_memory, streamed in zip(*batches):
        assert all(torch.equal(first, second) for first, second in zip(in_memory, streamed))
    # Four scans with images, labels and reference each, and tissue maps of the two that train.
    assert len(list(store.folder.iterdir())) == 4 * 3 + 2
    store.close()
    assert list((tmp_path / "stream").iterdir()) == []


@pytest.mark.parametrize("is_streamed", [False, True])
def test_packed_slices_have_no_tissues_and_the_sentence_says_so(two_sets, tmp_path, is_streamed):
    task = replace(two_sets, sources=(), contrast=None, validation=("first_1",))
    whole = read_task(task, tmp_path, CPU, ArrayStore(tmp_path / "stream") if is_streamed else None)
    with pytest.raises(TrainingError, match="needs tissue maps"):
        whole.slices.gather_tissues([Item(0, 0, 0)])
