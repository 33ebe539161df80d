"""Teaching as a job: cases from arrays and files, courses that outlive everything, pause, stop, resume, kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_cases import small_volume
from teaching_stand import SMALL_LABELS, layered_case, small_request

from HSAMSegmentLib.checkpoints.bundle import read_tensors
from HSAMSegmentLib.checkpoints.store import Store
from HSAMSegmentLib.errors import OutputError, RequestError, TrainingError
from HSAMSegmentLib.jobs.course import PAUSE, STOP, Course, Look, new_model_id, unfinished_courses
from HSAMSegmentLib.jobs.events import Failed, Metrics, Result, TeachPicture, is_terminal
from HSAMSegmentLib.jobs.inputs import VolumeInput
from HSAMSegmentLib.jobs.process_runner import ProcessRunner
from HSAMSegmentLib.jobs.requests import request_from_json, request_to_json
from HSAMSegmentLib.jobs.run import JobContext, run
from HSAMSegmentLib.jobs.teach_cases import (
    CaseSummary,
    OrganSummary,
    join_organs,
    keep_copy,
    open_case,
    summarize,
    taught_labels,
)
from HSAMSegmentLib.jobs.teach_preview import write_pair
from HSAMSegmentLib.jobs.teach_request import InspectRequest, LayerInput, OrganInput, TaughtOutcome, TeachCase
from HSAMSegmentLib.jobs.workspace import Workspace
from HSAMSegmentLib.progress import CancelToken
from HSAMSegmentLib.volumes.geometry import Geometry
from HSAMSegmentLib.volumes.labels import Label
from HSAMSegmentLib.volumes.segmentation_io import write_segmentation
from HSAMSegmentLib.volumes.terminology import label_for, label_set_of

posix = pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals")
LOOK = Look(step=10, seconds=3.5, loss=0.5, dice={"liver": 0.8, "right kidney": 0.6}, best=True)


# --- requests and cases


def test_a_teaching_request_comes_back_from_json_as_it_was(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder)
    assert request_from_json(json.loads(json.dumps(request_to_json(request)))) == request


def test_a_case_needs_labels_from_one_source():
    scan = VolumeInput(path="scan.nii.gz")
    with pytest.raises(RequestError, match="either as a file or as arrays"):
        TeachCase(scan, ())


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
    case = open_case(TeachCase(whole.scan, organs, layers=layers), SMALL_LABELS)
    assert np.array_equal(case.labels == 2, small == 1)
    assert np.array_equal(case.labels == 1, (large == 1) & (small == 0))


def test_two_names_of_one_organ_are_taught_as_one(tmp_path, data_folder):
    whole = layered_case(tmp_path, data_folder)
    organs = (OrganInput("liver", "liver", 0, 1), OrganInput("liver", "more liver", 0, 2))
    case = open_case(replace(whole, organs=organs), label_set_of({1: "liver"}))
    assert np.array_equal(case.labels == 1, np.load(whole.layers[0].array_file) > 0)


def test_a_label_file_gives_the_organs_that_are_wanted_under_the_taught_names(data_folder):
    folder = data_folder / "chaos_t2"
    image, labels = folder / "images" / "chaos_t2_02.nii.gz", folder / "labels" / "chaos_t2_02.nii.gz"
    summary = CaseSummary.from_json(run(InspectRequest(str(image), str(labels)), print, CancelToken()).values)
    assert summary.problem == ""
    assert summary.labelled_slices > 10
    first = summary.organs[0].label.name
    source = TeachCase(VolumeInput(path=str(image)), (OrganInput("my organ", first),), label_file=str(labels))
    case = open_case(source, label_set_of({1: "my organ"}))
    assert set(np.unique(case.labels)) == {0, 1}
    assert [label.name for label in case.label_set] == ["my organ"]


def test_a_label_file_that_cannot_be_used_is_a_row_with_its_problem_and_not_an_error(tmp_path, data_folder):
    volume, labels = small_volume(data_folder)
    from HSAMSegmentLib.volumes.volume import Segmentation

    empty = Segmentation(np.zeros_like(labels), volume.geometry, label_set_of({1: "liver"}), "empty")
    write_segmentation(empty, tmp_path / "empty.seg.nrrd")
    image = data_folder / "chaos_t2" / "images" / "chaos_t2_02.nii.gz"
    request = InspectRequest(str(image), str(tmp_path / "empty.seg.nrrd"))
    summary = CaseSummary.from_json(run(request, print, CancelToken()).values)
    assert "empty" in summary.problem
    assert summary.organs == ()


def test_a_copy_that_somebody_deleted_is_named(tmp_path, data_folder):
    case = layered_case(tmp_path, data_folder)
    Path(case.layers[0].array_file).unlink()
    with pytest.raises(TrainingError, match="'chaos_t2_02' that was taught from is gone"):
        open_case(case, SMALL_LABELS)


def test_a_case_of_files_goes_on_from_its_copy_when_the_files_are_gone(tmp_path, data_folder):
    folder = data_folder / "chaos_t2"
    image, labels = folder / "images" / "chaos_t2_02.nii.gz", folder / "labels" / "chaos_t2_02.nii.gz"
    names = {1: "Label 1", 4: "Label 4"}
    organs = (OrganInput("liver", names[1]), OrganInput("spleen", names[4]))
    source = TeachCase(VolumeInput(path=str(image)), organs, label_file=str(labels))
    taught = label_set_of({1: "liver", 2: "spleen"})
    case = open_case(source, taught)
    again = open_case(keep_copy(case, tmp_path, 1), taught)
    assert again.hashes == case.hashes, "a training that was begun on the files may go on with the copy"
    assert again.volume.geometry == case.volume.geometry
    assert again.label_set == case.label_set


def test_a_summary_counts_organs_and_slices_and_survives_json(tmp_path, data_folder):
    case = open_case(layered_case(tmp_path, data_folder), SMALL_LABELS)
    summary = summarize(case)
    labels = np.load(tmp_path / "chaos_t2_02-labels.npy")
    assert summary.labelled_slices == int((labels > 0).any(axis=(1, 2)).sum())
    assert [organ.slices for organ in summary.organs] == [int((labels == v).any(axis=(1, 2)).sum()) for v in (1, 2)]
    assert CaseSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


# --- names of organs


def summary_of(*labels: Label) -> CaseSummary:
    return CaseSummary("scan", tuple(OrganSummary(label, 5) for label in labels))


def test_one_organ_under_two_names_is_proposed_to_be_joined():
    names = join_organs([summary_of(label_for(1, "Left kidney")), summary_of(label_for(1, "kidney_left"))])
    assert names == {"Left kidney": "Left kidney", "kidney_left": "Left kidney"}


def test_different_organs_and_unknown_names_stay_apart():
    names = join_organs([summary_of(label_for(1, "Left kidney"), label_for(2, "lesion A"), label_for(3, "lesion B"))])
    assert list(names.values()) == ["Left kidney", "lesion A", "lesion B"]


def test_what_is_taught_keeps_color_and_code_and_is_numbered_from_one():
    first = summary_of(label_for(7, "Liver"), label_for(9, "kidney_left"))
    second = summary_of(label_for(3, "Left kidney"), label_for(4, "Spleen"))
    labels = taught_labels([first, second], join_organs([first, second]), left_out=["Liver"])
    assert [(label.value, label.name) for label in labels] == [(1, "kidney_left"), (2, "Spleen")]
    assert labels.by_value(1).terminology == label_for(1, "Left kidney").terminology


# --- the folder of a course


def test_the_history_counts_steps_once_and_forgives_a_torn_line(tmp_path):
    course = Course(tmp_path)
    for look in (LOOK, replace(LOOK, step=20), replace(LOOK, step=15, loss=0.4)):
        course.add_look(look)
    with course.history_file.open("a") as stream:
        stream.write('{"step": 30, "sec')
    assert [look.step for look in course.history()] == [10, 15]
    assert course.history()[0] == LOOK


def test_a_course_is_offered_with_how_far_it_is(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder)
    course = Course(request.folder)
    course.add_look(LOOK)
    (found,) = unfinished_courses(tmp_path)
    assert found.request == request
    assert found.best_dice == pytest.approx(0.7)
    assert found.seconds == 3.5
    assert not found.has_state


def test_a_course_that_somebody_works_on_is_not_offered_and_not_begun_twice(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder)
    folder = Path(request.folder)
    code = (
        "import sys, time; from HSAMSegmentLib.jobs.course import Course; Course(sys.argv[1]).mark_running(); "
        "print(flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    other.stdout.readline()
    assert unfinished_courses(tmp_path) == []
    with pytest.raises(RequestError, match="runs already"):
        run(request, print, CancelToken())
    other.kill()
    other.wait()
    other.stdout.close()
    assert len(unfinished_courses(tmp_path)) == 1


def test_what_is_done_goes_and_what_is_half_copied_goes_when_it_is_old(tmp_path, data_folder):
    done = Course(small_request(tmp_path, data_folder).folder)
    done.done_file.touch()
    fresh = Course.create(tmp_path, "fresh")
    old = Course.create(tmp_path, "old")
    os.utime(old.folder, (0, 0))
    assert unfinished_courses(tmp_path) == []
    assert [course.folder.exists() for course in (done, fresh, old)] == [False, True, False]


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


class Log:
    """Collects events, and does something at the n-th look."""

    def __init__(self, look: int = -1, then=None):
        self.events, self._look, self._then = [], look, then

    def __call__(self, event):
        self.events.append(event)
        if self._then is not None and len(self.of(Metrics)) == self._look and isinstance(event, Metrics):
            self._then()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def outcome_of(result) -> TaughtOutcome:
    return TaughtOutcome.from_json(json.loads(json.dumps(result.values)))


@pytest.mark.slow
def test_a_taught_model_is_in_the_store_with_its_card_and_the_scratch_data_is_gone(tmp_path, data_folder):
    log = Log()
    request = small_request(tmp_path, data_folder)
    outcome = outcome_of(run(request, log, CancelToken(), JobContext()))
    entry = Store(tmp_path / "store").find(outcome.model_id)
    assert entry.organs == ("liver", "right kidney")
    assert entry.title == outcome.title == "Small model"
    assert "Dice on held-out slices of the same scan" in outcome.card
    assert outcome.validated_on == "held-out slices of the same scan"
    assert set(outcome.dice) <= set(outcome.start_dice) == {"liver", "right kidney"}
    assert outcome.dice
    assert not Path(request.folder).exists()
    looks = log.of(Metrics)
    assert looks[0].step == 0
    assert looks[-1].step == outcome.steps
    assert {"loss", "seconds", "best"} <= set(looks[-1].values)
    assert any(name.startswith("dice/") for name in looks[-1].values)
    assert log.of(TeachPicture)


@pytest.mark.slow
def test_an_id_that_is_taken_by_then_gets_a_number(tmp_path, data_folder):
    first = outcome_of(run(small_request(tmp_path, data_folder), print, CancelToken()))
    second = outcome_of(run(small_request(tmp_path, data_folder), print, CancelToken()))
    assert (first.model_id, second.model_id) == ("small", "small-2")


@pytest.mark.slow
def test_a_pause_keeps_everything_and_resuming_ends_in_a_model(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=2.0)
    course = Course(request.folder)
    paused = outcome_of(run(request, Log(2, lambda: course.ask_for(PAUSE)), CancelToken()))
    assert paused.stopped == "paused"
    assert paused.model_id == ""
    (offered,) = unfinished_courses(tmp_path)
    assert offered.has_state
    rest = replace(offered.request, resume=True, minutes=paused.seconds / 60.0 + 0.75)
    outcome = outcome_of(run(rest, print, CancelToken()))
    assert outcome.steps > paused.steps
    assert outcome.seconds > paused.seconds
    assert any("Resumed" in note for note in outcome.notes)
    assert Store(tmp_path / "store").find(outcome.model_id).is_present


@pytest.mark.slow
def test_a_stop_keeps_the_best_so_far_as_a_model(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=2.0)
    course = Course(request.folder)
    outcome = outcome_of(run(request, Log(2, lambda: course.ask_for(STOP)), CancelToken()))
    assert outcome.stopped == "stopped"
    assert outcome.dice
    assert Store(tmp_path / "store").find(outcome.model_id).is_present
    assert unfinished_courses(tmp_path) == []


@pytest.mark.slow
def test_a_store_that_cannot_be_written_costs_nothing_that_was_learned(tmp_path, data_folder):
    (tmp_path / "store").write_text("a file where the folder should be")
    request = small_request(tmp_path, data_folder)
    with pytest.raises(OutputError, match="is kept in"):
        run(request, print, CancelToken())
    (tmp_path / "store").unlink()
    (offered,) = unfinished_courses(tmp_path)
    outcome = outcome_of(run(replace(offered.request, resume=True, finish=True), print, CancelToken()))
    assert Store(tmp_path / "store").find(outcome.model_id).is_present


def wait_for(runner, condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    seen = []
    while time.monotonic() < deadline:
        seen += runner.poll()
        if condition(seen):
            return seen
        time.sleep(0.02)
    raise AssertionError(f"waited in vain; last events: {seen[-3:]}")


@posix
@pytest.mark.slow
def test_a_killed_worker_loses_no_model_and_the_course_can_go_on_or_be_finished(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=60.0)
    state = Course(request.folder).state_file(request.model_id)
    workspace = Workspace(tmp_path)
    runner = ProcessRunner(workspace)
    runner.start(request)
    wait_for(runner, lambda seen: state.is_file() or (seen and is_terminal(seen[-1])))
    os.kill(runner.worker_pid, signal.SIGKILL)
    events = wait_for(runner, lambda seen: seen and is_terminal(seen[-1]))
    assert isinstance(events[-1], Failed)
    (offered,) = unfinished_courses(tmp_path)
    assert offered.has_state
    assert offered.history
    runner.start(replace(offered.request, resume=True, finish=True))
    events = wait_for(runner, lambda seen: seen and is_terminal(seen[-1]))
    runner.close()
    workspace.close()
    assert isinstance(events[-1], Result), events[-1]
    tensors = read_tensors(Store(tmp_path / "store").path_of(events[-1].values["model_id"]))
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


@posix
@pytest.mark.slow
def test_a_killed_program_takes_its_worker_along_and_the_next_start_offers_the_course(tmp_path, data_folder):
    request = small_request(tmp_path, data_folder, minutes=60.0)
    course = Course(request.folder)
    script = (
        "import sys, time\n"
        "from HSAMSegmentLib.jobs.course import Course\n"
        "from HSAMSegmentLib.jobs.process_runner import ProcessRunner\n"
        "from HSAMSegmentLib.jobs.workspace import Workspace\n"
        "runner = ProcessRunner(Workspace(sys.argv[1]))\n"
        "runner.start(Course(sys.argv[2]).read_request())\n"
        "while True:\n"
        "    runner.poll()\n"
        "    time.sleep(0.05)\n"
    )
    program = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), request.folder])
    wait_until(lambda: course.state_file(request.model_id).is_file())
    assert course.owner() is not None
    program.kill()
    program.wait()
    wait_until(lambda: course.owner() is None)
    (offered,) = unfinished_courses(tmp_path)
    assert offered.has_state
    outcome = outcome_of(run(replace(offered.request, resume=True, finish=True), print, CancelToken()))
    assert Store(tmp_path / "store").find(outcome.model_id).is_present


def wait_until(condition, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
