"""Every tab in every state, made without running a job: for tests of the layout, and for pictures to look at."""

from __future__ import annotations

import numpy as np

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal and splenic vein", "pancreas", "right adrenal gland", "left adrenal gland"),
)
HEART = ("left ventricular myocardium", "left ventricle", "right ventricle")
CONFIDENCES = (0.91, 0.86, 0.87, 0.54, 0.58, 0.93, 0.87, 0.83, 0.81, 0.71, 0.68, None, 0.38)
LONG_NAME = "CT_abdomen_portal_venous_3.0mm_soft_tissue_patient_0042"
"""With no place for a line break, as files are often named."""
_ROUNDS = 24
"""Of events: heights follow widths, the bar of the panel follows heights, and widths follow the bar, level by level."""
LONG_PATH = f"/data/radiology/2026/abdomen/{LONG_NAME}/organs_of_the_abdomen.seg.nrrd"


def add_scan(name=LONG_NAME, modality="CT"):
    """A scan of noise."""
    import slicer

    array = np.random.default_rng(0).integers(-1000, 400, (20, 64, 64)).astype(np.int16)
    node = slicer.util.addVolumeFromArray(array, np.diag([-5.5, -5.5, 6.0, 1.0]), name)
    node.SetAttribute("DICOM.Modality", modality)
    return node


def add_labels(scan, names=HEART, model="", title="organs"):
    """A segmentation with boxes, and what a model would note in it."""
    import slicer

    from HSAMSegmentLib.labels.terminology import label_for
    from HSAMSegmentLib.slicer.nodes.segmentations.segments import add_labels, create_segmentation, shared_labelmap
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry

    node = create_segmentation(scan, f"{scan.GetName()} {title}")
    labels = np.zeros((20, 64, 64), np.uint8)
    for value in range(1, len(names) + 1):
        labels[4:12, 4 * value : 4 * value + 3, 10:30] = value
    image = shared_labelmap(labels, (0, 64, 0, 64, 0, 20), volume_geometry(scan))
    add_labels_to = [label_for(value, name) for value, name in enumerate(names, 1)]
    add_labels(node, add_labels_to, image)
    if model:
        node.SetAttribute("HSAMSegment.Model", model)
        doubts = [
            {"index": 10 + number, "position_ijk": [20, 20, 10], "organ": name, "doubt": 9.0, "confidence": 0.5}
            for number, name in enumerate(names)
        ]
        node.SetAttribute("HSAMSegment.DoubtfulSlices", __import__("json").dumps(doubts))
        node.SetNodeReferenceID("HSAMSegment.SourceVolume", scan.GetID())
    slicer.app.processEvents()
    return node


def result(scan, confidences=CONFIDENCES, names=ORGANS):
    """The outcome of a job."""
    from HSAMSegmentLib.inference.result import Plausibility
    from HSAMSegmentLib.labels.terminology import label_for
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
    from HSAMSegmentLib.workflows.segment.segment_request import OrganOutcome, SegmentOutcome

    organs = []
    for value, (name, confidence) in enumerate(zip(names, confidences), 1):
        found = (12.3 * value**2, confidence, (9, 9, 9), (9, 9, 8)) if confidence is not None else (0.0, None)
        organs.append(OrganOutcome(label_for(value, name), *found))
    return SegmentOutcome(
        volume_geometry(scan),
        (0,) * 6,
        "",
        tuple(organs),
        "abdomen-ct",
        "Abdomen, CT",
        warnings=("The slices are thicker than those the model was trained on.",),
        device="cpu",
        precision_reason="Full precision, because this processor has no instructions for less.",
        seconds=92.0,
        plausibility=Plausibility(0.62, 0.9, 0.9, 0.77, ("liver is darker than in the training scans",)),
    )


def failure():
    """A failure with details."""
    from HSAMSegmentLib.workflows.events import Failed

    return Failed("There is too little memory for this scan (3.1 GB needed, 2.0 GB free). Close other programs.", "...")


def progress(stage="Segmenting slices", detail="12 of 30"):
    """A job on its way."""
    from HSAMSegmentLib.runtime.progress import Progress

    return Progress(0.42, stage, detail, 25.0)


def show_state(host, widget, key, state):
    """Bring a tab into a state; returns the tab."""
    import slicer

    slicer.mrmlScene.Clear(0)
    tab = widget.shell.open(key)
    STATES[key][state](tab)
    for _ in range(_ROUNDS):
        host.process_events()
    return tab


def _segment_ready(tab):
    scan = add_scan()
    tab.look_at_scene()
    tab.ui.scanSelector.setCurrentNode(scan)


def _segment_advanced(tab):
    _segment_ready(tab)
    tab.ui.advancedSection.collapsed = False


def _segment_running(tab):
    _segment_ready(tab)
    _occupy(tab._engine, tab._on_event)
    tab.refresh_button()
    tab.status.show_progress(progress())


def _occupy(engine, on_event):
    """Let an engine be busy with a job of this listener, without a worker."""
    engine._session = BusySession()
    engine._on_event = on_event


class BusySession:
    """Stands in for a session with a running job."""

    is_busy = True

    def cancel(self):
        """Nothing runs."""

    close = cancel


def _segment_failed(tab):
    _segment_ready(tab)
    tab.status.fail(failure())


def _segment_result(tab, confidences=CONFIDENCES):
    from HSAMSegmentLib.slicer.nodes.segment_session import Written

    _segment_ready(tab)
    scan = tab.ui.scanSelector.currentNode()
    written = Written(result(scan, confidences), add_labels(scan, ORGANS), scan)
    tab.result.show(written, show_3d=False)
    tab.status.say(tab.result.sentence(written))


def _segment_exported(tab):
    _segment_result(tab)
    tab.status.say(f"The result was saved to {LONG_PATH}.")


def _segment_nothing(tab):
    _segment_result(tab, (None,) * len(ORGANS))


def _segment_certain(tab):
    _segment_result(tab, (0.92,) * len(ORGANS))


def _finetune_cases(tab):
    scan = add_scan(LONG_NAME, "MR")
    tab.ui.finetuneSegmentationSelector.setCurrentNode(add_labels(scan))
    tab.ui.finetuneScanSelector.setCurrentNode(scan)
    tab._add_pair()


def _finetune_correct(tab):
    scan = add_scan(LONG_NAME, "MR")
    node = add_labels(scan, model="cardiac-mr-bssfp")
    tab.ui.finetuneSegmentationSelector.setCurrentNode(node)
    tab.ui.finetuneScanSelector.setCurrentNode(scan)


def _finetune_advanced(tab):
    _finetune_cases(tab)
    tab.ui.finetuneAdvancedSection.collapsed = False


def _finetune_models(tab):
    """With a model of one's own: here one that comes with the program."""
    from HSAMSegmentLib.slicer.panels.widgets.combo_entries import fill_combo

    _finetune_cases(tab)
    tab.models._entries = [entry for entry in tab.starts._store.models() if entry.manifest is not None][:1]
    fill_combo(tab.ui.myModelCombo, [(entry.title, entry.id) for entry in tab.models._entries])
    tab.models._on_select()


class RunningFinetune:
    """Stands in for a running fine-tuning, which ends as soon as it is asked to."""

    def __init__(self, run):
        self._run = run

    def ask_for(self, _wish):
        self._run._training_run = None


def _finetune_running(tab):
    _finetune_live(tab)
    tab.run._training_run = RunningFinetune(tab.run)
    tab.refresh_buttons()
    tab.status.show_progress(progress("Learning", "step 34, best mean Dice 0.80"))


def _finetune_live(tab):
    from HSAMSegmentLib.labels.terminology import label_set_of
    from HSAMSegmentLib.workflows.events import ValidationPicture
    from HSAMSegmentLib.workflows.finetune.validation_record import ValidationRecord

    _finetune_cases(tab)
    tab.live.begin("My heart", label_set_of(dict(enumerate(HEART, 1))))
    for step in range(3):
        dice = {name: 0.6 + 0.1 * step for name in HEART}
        tab.live.add(ValidationRecord(10 * step, 20.0 * step, 1.0 / (1 + step), dice, best=True))
    tab.live.show_picture(ValidationPicture(_picture(), LONG_NAME, 7))


def _finetune_finished(tab):
    from HSAMSegmentLib.workflows.finetune.finetune_request import FinetuneOutcome

    _finetune_live(tab)
    dice = {name: 0.9 for name in HEART}
    start = {name: 0.6 for name in HEART}
    tab.live.finish(FinetuneOutcome("mine", "My heart", dice, start, "slices of the same scan", 300.0, 90, "budget"))
    tab.status.say("'My heart' is in the list of models, fine-tuned in 5.0 min (the time is used up).")


def _finetune_failed(tab):
    _finetune_cases(tab)
    tab.status.fail(failure())


def _finetune_offer(tab):
    tab.ui.unfinishedBox.visible = True
    title = "My left ventricular myocardium, left ventricle, right ventricle"
    tab.ui.unfinishedLabel.setText(
        f"The fine-tuning of '{title}' is not finished: 2.5 of 5 min. Best mean Dice so far: 0.81."
    )


def _picture():
    import tempfile

    import qt

    pixmap = qt.QPixmap(520, 260)
    pixmap.fill(qt.QColor(40, 40, 40))
    path = f"{tempfile.gettempdir()}/hsam-panel-state.png"
    pixmap.save(path)
    return path


def _compare_ready(tab):
    scan = add_scan()
    for title in ("organs", "reference"):
        add_labels(scan, ORGANS, title=title)
    tab.look_at_scene()


def _compare_pairs(tab):
    _compare_ready(tab)
    tab.ui.pairSection.collapsed = False


def _compare_result(tab):
    from HSAMSegmentLib.slicer.nodes.segmentations.comparison import Compared
    from HSAMSegmentLib.slicer.nodes.volumes import volume_geometry
    from HSAMSegmentLib.workflows.compare.compare_request import BOTH, ONLY_FIRST, CompareOutcome, StructureScore

    _compare_ready(tab)
    scan = next(node for node in __import__("slicer").util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    scores = [
        StructureScore(name, BOTH, 0.9 - 0.03 * number, 4.2 + number, 1.1, 1234.5, 1301.2, 0.41, (0.0, 0.0, 0.0))
        for number, name in enumerate(ORGANS[:-1])
    ]
    scores.append(StructureScore(ORGANS[-1], ONLY_FIRST, 0.0, None, None, 3.2, 0.0, 0.0, (0.0, 0.0, 0.0)))
    mean = {"dice": 0.71, "hd95": 9.1, "asd": 1.1}
    counted = {"dice": 13, "hd95": 12, "asd": 12}
    names = [node.GetName() for node in tab.nodes]
    table = __import__("slicer").mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{names[0]} compared with {names[1]}")
    outcome = CompareOutcome(*names, tuple(scores), mean, counted, (), volume_geometry(scan), "")
    disagreement = np.random.default_rng(1).integers(0, 4, (20, 64, 64)).astype(np.uint8)
    tab._show_result(Compared(outcome, disagreement, table))


def _compare_disagreement(tab):
    _compare_result(tab)
    tab._on_disagreement()


def _compare_running(tab):
    _compare_ready(tab)
    _occupy(tab.engine, tab._on_event)
    tab.refresh()
    tab.status.show_progress(progress("Comparing", "spleen"))


def _compare_failed(tab):
    _compare_ready(tab)
    tab.status.fail(failure())


def _batch_scans(tab):
    for number in range(4):
        add_scan(f"{LONG_NAME} {number}")
    tab.look_at_scene()


def _batch_mode(mode):
    def show(tab):
        from HSAMSegmentLib.slicer.panels.widgets.combo_entries import select_data

        select_data(tab.ui.modeCombo, mode)

    return show


def _batch_result(tab):
    from HSAMSegmentLib.workflows.segment_folder.folder_request import DONE, FAILED, SKIPPED, WAITING, BatchRow

    _batch_scans(tab)
    volumes = tuple((name, 12.5 * number) for number, name in enumerate(ORGANS[:4]))
    broken = f"{LONG_NAME}_broken.nii.gz"
    reason = f'"{broken}" is cut off. Copy it again.'
    rows = (
        BatchRow(LONG_NAME, DONE, volumes_ml=volumes, output="a"),
        BatchRow("Second scan", DONE, message="The slices are thick.", volumes_ml=volumes, output="b"),
        BatchRow(broken, FAILED, message=reason),
        BatchRow("color.nrrd", SKIPPED, message="It has 3 values per voxel."),
        BatchRow("Last scan", WAITING),
    )
    tab.ui.resultSection.visible = True
    tab.table.show(rows)
    return rows


def _batch_detail(tab):
    rows = _batch_result(tab)
    tab._on_row(2, rows[2])


def _batch_running(tab):
    from types import SimpleNamespace

    rows = _batch_result(tab)
    tab._batch = SimpleNamespace(is_running=True, rows=rows, cancel=lambda: None)
    tab.refresh()
    tab.status.show_progress(progress("Segmenting slices", f"4 of 5: {LONG_NAME}"))


def _batch_useful(tab):
    from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestedScan, Suggestions

    _batch_mode("folder")(tab)
    folder = __import__("tempfile").gettempdir()
    tab.ui.sourceEdit.text, tab.ui.outputEdit.text = folder, f"{folder}/organs"
    reasons = ("The model is uncertain of the gallbladder.", "It is unlike the other scans.")
    scans = tuple(
        SuggestedScan(rank, f"{LONG_NAME} {rank}", "", "", 1.0 / rank, 0.5, 0.5, 0.3, (), reasons) for rank in (1, 2, 3)
    )
    tab.useful._show(Suggestions(scans, 24, (), "abdomen-ct"))


def _batch_failed(tab):
    _batch_scans(tab)
    tab.status.fail(failure())


def _nothing(tab):
    """As it is in an empty scene."""


STATES = {
    "segment": {
        "empty": _nothing,
        "ready": _segment_ready,
        "advanced": _segment_advanced,
        "running": _segment_running,
        "failed": _segment_failed,
        "result": _segment_result,
        "exported": _segment_exported,
        "nothing found": _segment_nothing,
        "certain": _segment_certain,
    },
    "finetune": {
        "empty": _nothing,
        "cases": _finetune_cases,
        "correct": _finetune_correct,
        "advanced": _finetune_advanced,
        "models": _finetune_models,
        "running": _finetune_running,
        "finished": _finetune_finished,
        "failed": _finetune_failed,
        "offer": _finetune_offer,
    },
    "compare": {
        "empty": _nothing,
        "ready": _compare_ready,
        "pairs": _compare_pairs,
        "running": _compare_running,
        "result": _compare_result,
        "disagreement": _compare_disagreement,
        "failed": _compare_failed,
    },
    "batch": {
        "empty": _nothing,
        "scans": _batch_scans,
        "sequence": _batch_mode("sequence"),
        "folder": _batch_mode("folder"),
        "useful": _batch_useful,
        "running": _batch_running,
        "result": _batch_result,
        "detail": _batch_detail,
        "failed": _batch_failed,
    },
}
