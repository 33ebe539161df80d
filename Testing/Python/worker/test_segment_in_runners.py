"""The job behind the panel's button, run in this thread: what it tells on the way and what it hands over."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from predictor_fixtures import RAW
from small_models import write_bundle
from small_scans import bright_boxes, write_scan

from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import SegmentOptions
from HSAMSegmentLib.weights.store import HOME_VARIABLE
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.events import Preview
from HSAMSegmentLib.workflows.run import run
from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest


@pytest.fixture
def request_for(tmp_path):
    model = write_bundle(tmp_path, "mine")
    scan = write_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "out").mkdir()

    def make(*organs):
        return SegmentRequest(
            VolumeInput(path=str(scan)),
            model=str(model),
            output_folder=str(tmp_path / "out"),
            device="cpu",
            options=SegmentOptions(organs=organs, threads=1, batch_size=5, postprocess=RAW),
            preview=True,
        )

    return make


def _run(request):
    """The outcome, and for each preview event its slices as they were in the file then."""
    shown = []

    def look(event):
        if isinstance(event, Preview):
            array = np.load(event.array_file, mmap_mode="r")
            shown.append((event.plane, event.slices, np.array(array.take(event.slices, axis=event.plane))))

    outcome = run(request, Context(look))
    return outcome, shown


def test_every_slice_is_shown_once_it_is_finished(request_for):
    outcome, shown = _run(request_for())
    assert sorted(index for _, slices, _ in shown for index in slices) == list(range(12))
    found = np.zeros(bright_boxes().array.shape, np.uint8)
    i0, i1, j0, j1, k0, k1 = outcome.box
    found[k0:k1, j0:j1, i0:i1] = outcome.read_labels()
    for plane, slices, labels in shown:
        assert plane == 0
        np.testing.assert_array_equal(labels, found[list(slices)])


def test_organs_that_nobody_asked_for_are_not_shown_on_the_way_either(request_for):
    everything = {value for _, _, labels in _run(request_for())[1] for value in np.unique(labels)}
    assert len(everything) > 2
    outcome, shown = _run(request_for("bright right"))
    (wanted,) = outcome.organs
    values = set(np.unique(np.concatenate([labels.ravel() for _, _, labels in shown])))
    assert values == {0, wanted.label.value}


def test_a_model_that_was_replaced_under_its_name_is_loaded_anew(request_for, tmp_path, monkeypatch):
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    file, context = tmp_path / "home" / "models" / "mine.safetensors", Context()
    titles, models = [], []
    for title in ("First", "First", "Second"):
        if title not in titles:
            (tmp_path / title).mkdir()
            os.replace(write_bundle(tmp_path / title, "mine", title=title), file)
        request = replace(request_for(), model="mine")
        titles.append(run(request, context).model_title)
        models.append(context.models.load("mine"))
    assert titles == ["First", "First", "Second"]
    assert models[0] is models[1]
    assert models[1] is not models[2]


def test_the_dicom_series_of_a_volume_of_a_scene_is_in_the_report(request_for, tmp_path):
    volume = bright_boxes()
    np.save(tmp_path / "scan.npy", volume.array)
    source = VolumeInput(array_file=str(tmp_path / "scan.npy"), geometry=volume.geometry, series="1.2.3")
    outcome, _ = _run(replace(request_for(), input=source))
    assert outcome.report["input"]["dicom_series"] == "1.2.3"
