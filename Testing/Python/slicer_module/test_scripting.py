"""The page on scripting, run example by example; and what scripts are told when something is wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from panel_fixtures import store_of_one_model

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, RequestError

pytestmark = pytest.mark.host
REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "HSAMSegment" / "HSAMSegment.py"
PAGE = REPOSITORY / "Docs" / "scripting.md"
SHORTER = {'"abdomen-ct"': '"tiny"', '["liver"]': '["Liver"]', "minutes=5": "minutes=0.02"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with store_of_one_model(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def shared_logic(host, store):
    import slicer

    if not hasattr(slicer.modules, "hsamsegment"):
        host.load_module(MODULE)
    from HSAMSegment import HSAMSegmentLogic

    logic = HSAMSegmentLogic()
    logic.store = store
    yield logic
    logic.close()


@pytest.fixture
def logic(shared_logic, scene):
    return shared_logic


@pytest.fixture
def scan_file(data_folder):
    return data_folder / "ct_totalsegmentator" / "images" / "ct_example_30.nii.gz"


@pytest.fixture
def scan(logic, scan_file):
    import slicer

    return slicer.util.loadVolume(str(scan_file), {})


def examples():
    """The code blocks of the page by the heading they stand under."""
    heading, found = "", []
    for part in re.split(r"(^## .*$)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        if part.startswith("## "):
            heading = part[3:]
        found += [(heading, code) for code in re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL)]
    return found


@pytest.mark.slow
def test_every_example_of_the_page_runs(shared_logic, scene, scan_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(scan_file, "scan.nii.gz")
    (tmp_path / "scans").mkdir()
    shutil.copy(scan_file, tmp_path / "scans")
    names: dict = {}
    assert len(examples()) >= 12
    (tmp_path / "home").mkdir()
    with store_of_one_model(tmp_path / "home"):
        for heading, code in examples():
            for long, short in SHORTER.items():
                code = code.replace(long, short)
            exec(compile(code, f"{PAGE.name}, {heading}", "exec"), names)
    assert {organ.label.name for organ in names["finished"].outcome.organs} == {"Liver"}
    assert [row.state for row in names["rows"]] == ["done"]
    assert Path(names["summary"]).is_file()
    assert (tmp_path / "organs.stl").stat().st_size > 1000
    assert {score.dice for score in names["compared"].outcome.scores} == {1.0}
    assert names["outcome"].model_id
    assert names["imported"].missing == ()
    assert names["code"] == 0, names["text"]
    assert "Cancelled" in capsys.readouterr().out


def test_the_page_names_every_method_of_the_logic_and_no_other():
    from HSAMSegmentLib.slicer.scripting.logic import ScriptingLogic

    text = PAGE.read_text(encoding="utf-8")
    methods = {name for name in dir(ScriptingLogic) if not name.startswith("_") and name[0].islower()}
    internal = {"engine", "finetuningEngine", "store", "segmentOptions", "isFineTuning"}
    assert [name for name in sorted(methods - internal) if name not in text] == []
    called = set(re.findall(r"logic\.(\w+)", text)) | set(re.findall(r"`(\w+AndWait)", text))
    assert called - methods == set()


def test_a_script_is_told_at_once_what_is_wrong(logic, scan):
    with pytest.raises(RequestError, match="smallest volume"):
        logic.segment(scan, "tiny", minimumMl=-1.0)
    with pytest.raises(TypeError, match="largestPeace"):
        logic.segment(scan, "tiny", largestPeace=True)
    with pytest.raises(RequestError, match="nothing to train on"):
        logic.fineTune([])
    with pytest.raises(RequestError, match="No fine-tuning is running"):
        logic.stopFineTuning()
    with pytest.raises(HSAMSegmentError, match="nowhere"):
        logic.downloadModelAndWait("nowhere")
    with pytest.raises(HSAMSegmentError):
        logic.importModelAndWait("nowhere.safetensors")


def test_one_bad_scan_of_several_stops_no_other(logic, scan):
    import slicer

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    told = []
    rows = logic.segmentScansAndWait([empty, scan], "tiny", onRows=told.append)
    assert [row.state for row in rows] == ["skipped", "done"]
    assert told[-1] == rows


def test_the_model_of_a_scan_is_found(logic, scan):
    assert logic.modelFor(scan) == "tiny"


def test_a_fine_tuning_is_followed_and_cancelled_while_a_scan_is_segmented(host, logic, scan, tmp_path):
    from HSAMSegmentLib.runtime.progress import Progress
    from HSAMSegmentLib.workflows.events import Cancelled

    segmentation = logic.segmentAndWait(scan, "tiny").segmentation_node
    events = []
    logic.fineTune([(scan, segmentation)], onEvent=events.append, minutes=30, scratch=str(tmp_path))
    assert logic.isFineTuning()
    with pytest.raises(RequestError, match="Another job is running"):
        logic.fineTune([(scan, segmentation)], minutes=30, scratch=str(tmp_path))
    assert logic.segmentAndWait(scan, "tiny").outcome.found
    assert logic.isFineTuning()
    logic.cancelFineTuning()
    while logic.isFineTuning():
        host.process_events()
    assert isinstance(events[0], Progress)
    assert isinstance(events[-1], Cancelled)


def test_a_cancel_ends_a_batch_and_keeps_what_is_finished(logic, scan):
    def cancel_the_second(rows):
        if rows[0].state == "done":
            logic.cancel()

    with pytest.raises(CancelledError, match="what is finished stays"):
        logic.segmentScansAndWait([scan, scan], "tiny", onRows=cancel_the_second)
    assert not logic.isBusy()
