"""The trainings of the built-in models, on a small phantom: packed data, resuming, the CT recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from HSAMSegmentLib.errors import TrainingError
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.preprocess.rules import SliceRule
from HSAMSegmentLib.training.data.batches import gather
from HSAMSegmentLib.training.data.cases import Case, make_case
from HSAMSegmentLib.training.data.sampling import Item
from HSAMSegmentLib.training.data.slice_bank import build_slice_bank
from HSAMSegmentLib.training.loop.checkpointer import load_state, save_state
from recipes.builtin_tasks import ABDOMEN, ABDOMEN_CT, ALL_TASKS, BuiltinTask, tasks_of
from recipes.export_builtin import averaged_networks
from recipes.packed_slices import read_pack, scan_slices, write_pack
from recipes.task_data import task_data
from recipes.train_builtin import BuiltinTraining, Settings, TaskBatches, describe, train

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def small_task(**changes) -> BuiltinTask:
    rule = SliceRule(framing="spacing", pixel_spacing_mm=6.0, context="adjacent", context_mm=12.0)
    settings = {"image_size": 64, "train_size": (32, 48), "batch_size": 2, "full_size_every": 2, "slices": rule}
    return replace(ABDOMEN, **{**settings, "validation": ("scan 1",), **changes})


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    geometry = phantom_geometry(size=(60, 60, 20), spacing_mm=(5.5, 5.5, 12.0))
    made = [make_case(*abdomen_phantom(seed=seed, geometry=geometry)) for seed in (0, 1)]
    return [
        replace(case, labeled=None, volume=replace(case.volume, name=f"scan {number}"))
        for number, case in enumerate(made)
    ]


def banks_of(cases: list[Case], task: BuiltinTask):
    return [
        build_slice_bank(case, slices=task.slices, intensity=task.intensity, image_size=task.image_size)
        for case in cases
    ]


def new_training(cases: list[Case], task: BuiltinTask | None = None, **settings) -> BuiltinTraining:
    task = task or small_task()
    return BuiltinTraining([task_data(task, banks_of(cases, task), CPU)], Settings(**{"minutes": 1e3, **settings}))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_slices_on_the_device_are_those_of_the_banks(cases):
    task = small_task(validation=())
    banks = banks_of(cases, task)
    items = [Item(0, 0, 0), Item(1, 19, 0), Item(1, 7, 0)]
    for found, expected in zip(task_data(task, banks, CPU).slices.gather(items), gather(banks, items)):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("pixel_spacing_mm", [6.0, 3.0], ids=["training resolution", "resolution of the scan"])
def test_packed_slices_come_back_within_two_gray_levels(cases, tmp_path, pixel_spacing_mm):
    rule = replace(small_task().slices, pixel_spacing_mm=pixel_spacing_mm)
    task = small_task(slices=rule, image_size=48 if pixel_spacing_mm == 6.0 else 112)
    path = tmp_path / "task.npz"
    scans = [scan_slices(case, task) for case in cases]
    assert [scan.facts["is_framed"] for scan in scans] == [pixel_spacing_mm == 6.0] * 2
    assert write_pack(path, task, scans) == 8
    for found, expected in zip(read_pack(path, task), banks_of(cases, task)):
        assert found.name == expected.name
        assert found.context_step == expected.context_step
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.reference, expected.reference)
        every = range(len(found))
        difference = (found.inputs(every) - expected.inputs(every).clamp(0, 1)).abs().max()
        assert difference <= 2 / 255


def test_a_pack_keeps_fewer_gray_levels_if_it_would_be_too_large(cases, tmp_path):
    task, path = small_task(), tmp_path / "task.npz"
    scans = [scan_slices(case, task) for case in cases]
    write_pack(path, task, scans)
    limit = int(0.9 * path.stat().st_size)
    assert write_pack(path, task, scans, limit_bytes=limit) < 8
    assert path.stat().st_size <= limit
    with pytest.raises(TrainingError, match="do not fit"):
        write_pack(path, task, scans, limit_bytes=1000)


def test_a_pack_of_another_task_or_a_damaged_one_is_refused(cases, tmp_path):
    task, path = small_task(), tmp_path / "task.npz"
    write_pack(path, task, [scan_slices(cases[0], task)])
    with pytest.raises(TrainingError, match="another task"):
        read_pack(path, small_task(image_size=80))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="cannot be read"):
        read_pack(path, task)


def test_data_without_a_validation_scan_are_refused(cases):
    task = small_task(validation=("scan 7",))
    with pytest.raises(TrainingError, match="lack the validation scans scan 7"):
        task_data(task, banks_of(cases, task), CPU)


def test_a_resumed_training_is_the_same_bit_by_bit(cases, tmp_path):
    whole = new_training(cases)
    for _ in range(4):
        whole.step()
    expected = whole.state()
    first = new_training(cases)
    for _ in range(2):
        first.step()
    save_state(tmp_path / "state", first.state())
    second = new_training(cases)
    second.resume(tmp_path / "state")
    for _ in range(2):
        second.step()
    for part in ("networks", "average"):
        assert same(second.state()[part], expected[part])


def test_a_state_of_version_0_1_resumes(cases, tmp_path):
    training = new_training(cases)
    training.step()
    state = training.state()
    del state["torch_generator"]
    save_state(tmp_path / "state", state)
    resumed = new_training(cases)
    resumed.resume(tmp_path / "state")
    assert (resumed.trainer.steps, resumed.seconds) == (1, state["seconds"])
    assert same(resumed.state()["networks"], state["networks"])


def test_a_training_ends_with_its_minutes_and_can_be_exported(cases, tmp_path):
    task, path = small_task(), tmp_path / "state"
    training = new_training(cases, task, minutes=0.02, validate_minutes=0.005)
    results = train(training, path)
    assert training.progress >= 1.0
    assert task.id in describe(results)
    networks, state = averaged_networks(path, [task])
    assert state["taught"] == {task.id: ["scan 0"]}
    assert state["steps"] == training.trainer.steps == load_state(path)["steps"] > 0
    assert not networks.training


def test_crops_are_centered_on_the_labels_and_whole_slices_come_every_so_many_steps(cases):
    task = small_task(centers_on_labels=True, full_size_batch=1, full_size_every=3)
    data = task_data(task, banks_of(cases, task), CPU)
    steps = iter(range(4))
    batches = TaskBatches(data, torch.nn.Identity(), Settings(minutes=1, batch_factor=2), lambda: next(steps))
    shapes = [tuple(batches.draw(torch.Generator().manual_seed(0))[0].shape) for _ in range(4)]
    assert shapes == [(2, 3, 64, 64), (4, 3, 32, 48), (4, 3, 32, 48), (2, 3, 64, 64)]


def test_every_recipe_is_complete_and_the_ct_recipe_has_its_structures():
    assert len({task.id for task in ALL_TASKS}) == len(ALL_TASKS)
    assert tasks_of(["abdomen-ct"]) == (ABDOMEN_CT,)
    assert len(ABDOMEN_CT.labels) == ABDOMEN_CT.architecture.num_classes == 13
    enhancing = [ABDOMEN_CT.labels[value - 1] for value in ABDOMEN_CT.augment.enhancing_labels]
    assert "aorta" in enhancing
    assert "stomach" not in enhancing
    with pytest.raises(TrainingError, match="There is no task"):
        tasks_of(["abdomen-pet"])


def test_a_new_task_starts_from_the_matching_weights_of_a_model(cases, tmp_path):
    from HSAMSegmentLib.weights.loading import load_model

    training = new_training(cases)
    model = load_model("abdomen-mr")
    (report,) = training.start_from(model).values()
    assert report.common_labels == training.data[0].task.labels
    source = model.network.state_dict()
    found = training.trainer.average.network.state_dict()
    name = next(name for name in report.taken if name.startswith("encoder."))
    assert torch.equal(found[f"{training.data[0].task.id}.{name}"], source[name])


def test_the_program_for_a_gpu_runs_here_too(cases, tmp_path, monkeypatch):
    import runpy
    import sys

    task = small_task(start_from="")
    write_pack(tmp_path / f"{task.id}.npz", task, [scan_slices(case, task) for case in cases])
    monkeypatch.setattr("recipes.builtin_tasks.TASKS", (task,))
    script = Path(__file__).parents[3] / "Scripts" / "train_builtin.py"
    state = tmp_path / "state"
    options = ["--packed", str(tmp_path), "--state", str(state), "--minutes", "0.005", "--batch-factor", "2"]
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    runpy.run_path(str(script), run_name="__main__")
    assert load_state(state)["steps"] > 0
