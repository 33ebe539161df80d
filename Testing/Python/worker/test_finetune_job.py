"""Fine-tuning as a job: cases from arrays and files, training runs that outlive everything, and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_fixtures import SMALL_LABELS, layered_case, small_request
from small_cases import small_volume

from HSAMSegmentLib.errors import RequestError, TrainingError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.layered_segmentation import LayerInput
from HSAMSegmentLib.labels.segmentation_files import write_segmentation
from HSAMSegmentLib.labels.terminology import label_for, label_set_of
from HSAMSegmentLib.runtime.serialization import from_plain, to_plain
from HSAMSegmentLib.training.data.cases import open_case
from HSAMSegmentLib.training.request import FinetuneCase, OrganInput
from HSAMSegmentLib.workflows.finetune.finetune_request import InspectRequest
from HSAMSegmentLib.workflows.finetune.inspect_cases import (
    CaseSummary,
    OrganSummary,
    finetune_labels,
    join_organs,
    keep_copy,
    summarize,
)
from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun, new_model_id, unfinished_runs
from HSAMSegmentLib.workflows.finetune.validation_picture import write_pair
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord
from HSAMSegmentLib.workflows.requests import request_from_json, request_to_json
from HSAMSegmentLib.workflows.run import run

posix = pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
LOOK = ValidationRecord(step=10, seconds=3.5, loss=0.5, dice={"liver": 0.8, "right kidney": 0.6}, best=True)


# --- requests and cases


def test_a_finetuning_request_comes_back_from_json_as_it_was(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder)
    written = request_to_json(request)
    assert written["kind"] == "finetune"
    assert request_from_json(json.loads(json.dumps(written))) == request
    assert request_from_json({**written, "kind": "teach"}) == request, "as version 0.1 wrote it"


def test_a_case_needs_labels_from_one_source():
    scan = VolumeInput(path="scan.nii.gz")
    with pytest.raises(RequestError, match="either as a file or as arrays"):
        FinetuneCase(scan, ())


def test_the_arrays_of_a_scene_become_the_case_that_files_would_give(tmp_path, data_folder):
    case = open_case(layered_case(tmp_path, data_folder), SMALL_LABELS)
    volume, labels = small_volume(data_folder)
    assert np.array_equal(case.volume.array, volume.array)
    assert np.array_equal(case.labels, labels)
    assert [label.name for label in case.label_set] == ["liver", "right kidney"]


def write_layer(folder: Path, array: np.ndarray, geometry: Geometry, name: str) -> LayerInput:
    np.save(folder / f"{name}.npy", array)
    return LayerInput(str(folder / f"{name}.npy"), geometry)


def test_a_cropped_layer_lands_where_it_was(tmp_path, data_folder):
    whole = layered_case(tmp_path, data_folder)
    labels = np.load(whole.layers[0].array_file)
    (k0, j0, i0), (k1, j1, i1) = np.argwhere(labels).min(axis=0), np.argwhere(labels).max(axis=0) + 1
    matrix = whole.scan.geometry.ijk_to_lps
    cropped = replace(
        whole.scan.geometry,
        size=(int(i1 - i0), int(j1 - j0), int(k1 - k0)),
        origin_mm=tuple((matrix @ [i0, j0, k0, 1.0])[:3]),
    )
    layer = write_layer(tmp_path, labels[k0:k1, j0:j1, i0:i1], cropped, "cropped")
    assert np.array_equal(open_case(replace(whole, layers=(layer,)), SMALL_LABELS).labels, labels)


def test_where_organs_of_two_layers_overlap_the_smaller_one_stays(tmp_path, data_folder):
    whole = layered_case(tmp_path, data_folder)
    geometry = whole.scan.geometry
    large, small = np.zeros(geometry.shape, np.uint8), np.zeros(geometry.shape, np.uint8)
    large[3:10, 5:40, 5:40] = 1
    small[5:8, 10:15, 10:15] = 1
    layers = (write_layer(tmp_path, small, geometry, "small"), write_layer(tmp_path, large, geometry, "large"))
    organs = (OrganInput("right kidney", "Segment_1", 0, 1), OrganInput("liver", "Segment_2", 1, 1))
    case = open_case(FinetuneCase(whole.scan, organs, layers=layers), SMALL_LABELS)
    assert np.array_equal(case.labels == 2, small == 1)
    assert np.array_equal(case.labels == 1, (large == 1) & (small == 0))


def test_two_names_of_one_organ_are_finetuned_as_one(tmp_path, data_folder):
    whole = layered_case(tmp_path, data_folder)
    organs = (OrganInput("liver", "liver", 0, 1), OrganInput("liver", "more liver", 0, 2))
    case = open_case(replace(whole, organs=organs), label_set_of({1: "liver"}))
    assert np.array_equal(case.labels == 1, np.load(whole.layers[0].array_file) > 0)


def test_a_label_file_gives_the_organs_that_are_wanted_under_the_finetuned_names(data_folder):
    folder = data_folder / "chaos_t2"
    image, labels = folder / "images" / "chaos_t2_02.nii.gz", folder / "labels" / "chaos_t2_02.nii.gz"
    summary = run(InspectRequest(str(image), str(labels)))
    assert summary.problem == ""
    assert summary.labeled_slices > 10
    first = summary.organs[0].label.name
    source = FinetuneCase(VolumeInput(path=str(image)), (OrganInput("my organ", first),), label_file=str(labels))
    case = open_case(source, label_set_of({1: "my organ"}))
    assert set(np.unique(case.labels)) == {0, 1}
    assert [label.name for label in case.label_set] == ["my organ"]


def test_a_label_file_that_cannot_be_used_is_a_row_with_its_problem_and_not_an_error(tmp_path, data_folder):
    volume, labels = small_volume(data_folder)
    from HSAMSegmentLib.labels.segmentation import Segmentation

    empty = Segmentation(np.zeros_like(labels), volume.geometry, label_set_of({1: "liver"}), "empty")
    write_segmentation(empty, tmp_path / "empty.seg.nrrd")
    image = data_folder / "chaos_t2" / "images" / "chaos_t2_02.nii.gz"
    request = InspectRequest(str(image), str(tmp_path / "empty.seg.nrrd"))
    summary = run(request)
    assert "empty" in summary.problem
    assert summary.organs == ()


def test_a_copy_that_somebody_deleted_is_named(tmp_path, data_folder):
    case = layered_case(tmp_path, data_folder)
    Path(case.layers[0].array_file).unlink()
    with pytest.raises(TrainingError, match="'chaos_t2_02' that was trained on is gone"):
        open_case(case, SMALL_LABELS)


def test_a_case_of_files_goes_on_from_its_copy_when_the_files_are_gone(tmp_path, data_folder):
    folder = data_folder / "chaos_t2"
    image, labels = folder / "images" / "chaos_t2_02.nii.gz", folder / "labels" / "chaos_t2_02.nii.gz"
    names = {1: "Label 1", 4: "Label 4"}
    organs = (OrganInput("liver", names[1]), OrganInput("spleen", names[4]))
    source = FinetuneCase(VolumeInput(path=str(image)), organs, label_file=str(labels))
    finetuned = label_set_of({1: "liver", 2: "spleen"})
    case = open_case(source, finetuned)
    again = open_case(keep_copy(case, tmp_path, 1), finetuned)
    assert again.hashes == case.hashes, "a training that was begun on the files may go on with the copy"
    assert again.volume.geometry == case.volume.geometry
    assert again.label_set == case.label_set


def test_a_summary_counts_organs_and_slices_and_survives_json(tmp_path, data_folder):
    case = open_case(layered_case(tmp_path, data_folder), SMALL_LABELS)
    summary = summarize(case)
    labels = np.load(tmp_path / "chaos_t2_02-labels.npy")
    assert summary.labeled_slices == int((labels > 0).any(axis=(1, 2)).sum())
    assert [organ.slices for organ in summary.organs] == [int((labels == v).any(axis=(1, 2)).sum()) for v in (1, 2)]
    assert from_plain(CaseSummary, json.loads(json.dumps(to_plain(summary)))) == summary


# --- names of organs


def summary_of(*labels: Label) -> CaseSummary:
    return CaseSummary("scan", tuple(OrganSummary(label, 5) for label in labels))


def test_one_organ_under_two_names_is_proposed_to_be_joined():
    names = join_organs([summary_of(label_for(1, "Left kidney")), summary_of(label_for(1, "kidney_left"))])
    assert names == {"Left kidney": "Left kidney", "kidney_left": "Left kidney"}


def test_different_organs_and_unknown_names_stay_apart():
    names = join_organs([summary_of(label_for(1, "Left kidney"), label_for(2, "lesion A"), label_for(3, "lesion B"))])
    assert list(names.values()) == ["Left kidney", "lesion A", "lesion B"]


def test_what_is_finetuned_keeps_color_and_code_and_is_numbered_from_one():
    first = summary_of(label_for(7, "Liver"), label_for(9, "kidney_left"))
    second = summary_of(label_for(3, "Left kidney"), label_for(4, "Spleen"))
    labels = finetune_labels([first, second], join_organs([first, second]), left_out=["Liver"])
    assert [(label.value, label.name) for label in labels] == [(1, "kidney_left"), (2, "Spleen")]
    assert labels.by_value(1).terminology == label_for(1, "Left kidney").terminology


# --- the folder of a training run


def test_the_history_counts_steps_once_and_forgives_a_torn_line(tmp_path):
    training_run = TrainingRun(tmp_path)
    for record in (LOOK, replace(LOOK, step=20), replace(LOOK, step=15, loss=0.4)):
        training_run.add_record(record)
    with training_run.history_file.open("a") as stream:
        stream.write('{"step": 30, "sec')
    assert [record.step for record in training_run.history()] == [10, 15]
    assert training_run.history()[0] == LOOK


def test_a_course_is_offered_with_how_far_it_is(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder)
    training_run = TrainingRun(request.folder)
    training_run.add_record(LOOK)
    (found,) = unfinished_runs(tmp_path)
    assert found.request == request
    assert found.best_dice == pytest.approx(0.7)
    assert found.seconds == 3.5
    assert not found.has_state


def test_a_course_that_somebody_works_on_is_not_offered_and_not_begun_twice(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder)
    folder = Path(request.folder)
    code = (
        "import sys, time; from HSAMSegmentLib.workflows.finetune.training_run import TrainingRun; "
        "TrainingRun(sys.argv[1]).mark_running(); "
        "print(flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    other.stdout.readline()
    assert unfinished_runs(tmp_path) == []
    with pytest.raises(RequestError, match="runs already"):
        run(request)
    other.kill()
    other.wait()
    other.stdout.close()
    assert len(unfinished_runs(tmp_path)) == 1


def test_what_is_done_goes_and_what_is_half_copied_goes_when_it_is_old(tmp_path, data_folder):
    done = TrainingRun(small_request(tmp_path, data_folder).folder)
    done.done_file.touch()
    fresh = TrainingRun.create(tmp_path, "fresh")
    old = TrainingRun.create(tmp_path, "old")
    os.utime(old.folder, (0, 0))
    assert unfinished_runs(tmp_path) == []
    assert [training_run.folder.exists() for training_run in (done, fresh, old)] == [False, True, False]


def test_a_new_id_is_short_and_free():
    assert new_model_id("My liver: Ärzte & Co", set()) == "my-liver-rzte-co"
    assert new_model_id("Liver", {"liver", "liver-2"}) == "liver-3"
    assert new_model_id("???", set()) == "my-model"


def test_the_picture_shows_reference_and_prediction_side_by_side(tmp_path):
    import SimpleITK

    image = np.full((40, 60), 100, np.uint8)
    reference, predicted = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    reference[10:20, 10:30] = 1
    labels = label_set_of({1: "liver"})
    write_pair(image, reference, predicted, tuple(labels), tmp_path / "pair.png")
    picture = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "pair.png")))
    middle = picture.shape[1] // 2
    colored = picture.max(axis=2).astype(int) - picture.min(axis=2) > 30
    assert colored[:, : middle - 3].any()
    assert not colored[:, middle + 3 :].any()


# --- whole jobs
