from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from HSAMSegmentLib.errors import CancelledError, RequestError, VolumeError
from HSAMSegmentLib.evaluation.label_matching import StructurePair
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions
from HSAMSegmentLib.labels.layered_segmentation import LayeredStructure, LayerInput
from HSAMSegmentLib.labels.terminology import label_for, label_set_of
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.training.request import FinetuneCase, FinetuneRequest, OrganInput
from HSAMSegmentLib.workflows.compare.compare_request import CompareRequest, SideInput
from HSAMSegmentLib.workflows.events import (
    Cancelled,
    Failed,
    ItemDone,
    Preview,
    Result,
    ending_of,
    event_from_json,
    event_to_json,
    is_terminal,
    sentence_for,
    sentence_for_exit,
)
from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord
from HSAMSegmentLib.workflows.requests import (
    DownloadRequest,
    ExportModelRequest,
    ImportModelRequest,
    ProbeRequest,
    VerifyRequest,
    request_from_json,
    request_to_json,
)
from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest
from HSAMSegmentLib.workflows.segment_folder.folder_request import FolderRequest

OBLIQUE = Geometry(
    size=(5, 6, 7),
    spacing_mm=(0.1, 1.0 / 3.0, 7.7),
    origin_mm=(-1.5, 2e-17, 1e5),
    direction=(0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0),
)

REQUESTS = [
    SegmentRequest(input=VolumeInput(path="scan.nii.gz"), model="hsam", output_folder="out"),
    SegmentRequest(
        input=VolumeInput(array_file="scan.npy", geometry=OBLIQUE, name="Müller", modality="CT"),
        model="model.safetensors",
        output_folder="out",
        options=SegmentOptions(
            organs=("Liver", "Spleen"),
            roi=(0, 1, 2, 3, 4, 5),
            postprocess=PostprocessOptions(largest_piece=False, minimum_ml=0.0),
        ),
        surfaces=True,
    ),
    DownloadRequest(model="sam_vit_b"),
    ImportModelRequest("mine.pth", "mine", ((1, "Liver"), (2, "Spleen")), 224, overwrite=True, folder="store"),
    ExportModelRequest("mine", "shared.safetensors", catalog_file="catalog.json"),
    VerifyRequest(path="weights.pth", sha256="ab"),
    ProbeRequest(devices=False),
    FinetuneRequest(
        Path("run") / "my-organs.safetensors",
        (
            FinetuneCase(
                VolumeInput(array_file="scan.npy", geometry=OBLIQUE, name="Müller"),
                (OrganInput("Liver", "Leber", 0, 3),),
                layers=(LayerInput("labels.npy", OBLIQUE),),
            ),
        ),
        (FinetuneCase.of_files(Path("other.nii.gz"), Path("other.seg.nrrd")),),
        names={1: "Liver"},
        labels=label_set_of({1: "Liver"}),
        minutes=2.5,
        stream_folder=Path("slices"),
        store_folder="store",
    ),
    FolderRequest("in", "out", "tiny", options=SegmentOptions(organs=("Liver",))),
    CompareRequest(
        SideInput("A", (LayerInput("a.npy", OBLIQUE),), (LayeredStructure(label_for(1, "Leber"), 0, 3),), OBLIQUE),
        SideInput("B", (), (LayeredStructure(label_for(1, "Liver"), None, 0),)),
        (StructurePair("Liver", 0, 0), StructurePair("Spleen", None, 1)),
        "out",
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.kind)
def test_a_request_comes_back_from_json_bit_for_bit(request_):
    assert request_from_json(json.loads(json.dumps(request_to_json(request_)))) == request_


@pytest.mark.parametrize(
    "event",
    [
        Progress(0.5, "Segmenting slices", "slice 3 of 6", 12.5),
        Preview(0, (3, 4), "labels.npy"),
        ValidationRecord(7, 3.5, 0.25, {"liver": 0.8}, True),
        ItemDone(1, 3, {"name": "a", "volumes_ml": [["Liver", 1.5]]}),
        Result({"organs": [1, 2]}),
        Failed("The disk is full.", "Traceback\nline", "OSError", 8),
        Cancelled(),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_comes_back_from_json(event):
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_only_the_last_event_of_a_job_is_terminal():
    assert [
        is_terminal(event)
        for event in (Progress(0, ""), ValidationRecord(0, 0.0, None, {}, False), Result(), Failed(""), Cancelled())
    ] == [
        False,
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("data", [None, "", {}, [1], {"event": "surprise"}, {"event": "metrics"}])
def test_what_is_not_an_event_is_refused(data):
    with pytest.raises(ValueError):
        event_from_json(data)


@pytest.mark.parametrize("data", [{}, {"kind": "dance"}, {"kind": "verify"}, {"kind": "verify", "path": "x", "new": 1}])
def test_a_request_of_another_version_is_refused_in_words(data):
    with pytest.raises(RequestError, match="job"):
        request_from_json(data)


def test_the_request_of_a_training_run_of_an_earlier_version_is_read():
    case = FinetuneCase.of_files(Path("scan.nii.gz"), Path("labels.nii.gz"))
    labels = label_set_of({1: "Liver"})
    now = FinetuneRequest(Path("run") / "my-liver.safetensors", (case,), title="My liver", minutes=3.0, labels=labels)
    written = request_to_json(now)
    earlier = {
        name: written[name] for name in ("cases", "labels", "title", "minutes", "start_from", "resume", "finish")
    }
    for kind in ("teach", "finetune"):
        found = request_from_json({"kind": kind, "folder": "run", "model_id": "my-liver", **earlier})
        assert found == now
        assert (found.folder, found.model_id) == (Path("run"), "my-liver")


def test_a_scan_is_given_either_as_a_file_or_as_an_array_with_geometry():
    with pytest.raises(RequestError, match="both or none"):
        VolumeInput()
    with pytest.raises(RequestError, match="geometry"):
        VolumeInput(array_file="scan.npy")


def test_errors_become_sentences_with_a_next_step():
    assert sentence_for(VolumeError("The scan has no slices.")) == "The scan has no slices."
    assert "memory" in sentence_for(MemoryError())
    assert "'torch' is not installed" in sentence_for(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert "disk is full (big.npy)" in sentence_for(OSError(errno.ENOSPC, "No space left on device", "big.npy"))
    assert "not permitted" in sentence_for(PermissionError(errno.EACCES, "denied", "here"))
    assert "KeyError" in sentence_for(KeyError("x"))


def test_an_error_ends_a_job_with_its_traceback_and_a_cancel_without():
    assert ending_of(CancelledError("Cancelled.")) == Cancelled()
    try:
        raise VolumeError("The scan has no slices.")
    except VolumeError as error:
        failed = ending_of(error)
    assert (failed.cause, failed.error, failed.exit_code) == ("The scan has no slices.", "VolumeError", 3)
    assert "test_requests.py" in failed.details


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "SIGKILL"),
        (137, "out of memory"),
        (-11, "crashed (signal 11, SIGSEGV)"),
        (-15, "ended from outside (signal 15, SIGTERM)"),
        (3, "exit code 3"),
        (3221225477, "exit code 3221225477"),
    ],
)
def test_the_end_of_a_worker_is_told_by_its_return_code(code, words):
    assert words in sentence_for_exit(code)
