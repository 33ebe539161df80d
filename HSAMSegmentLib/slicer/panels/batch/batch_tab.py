"""The "Batch" tab: all scans of the scene, the frames of a sequence, or a folder, one after the other."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.slicer.nodes.batch import AnyBatch, Batch, BatchListener, FolderBatch, VolumeItem
from HSAMSegmentLib.slicer.nodes.parameter_node import ParameterNode
from HSAMSegmentLib.slicer.nodes.segment_session import BoundRequest, SessionEvent, Written, bind_request
from HSAMSegmentLib.slicer.nodes.sequences import FrameItem, FrameResults, sequence_problem, sequences_missing
from HSAMSegmentLib.slicer.nodes.tables import SummaryNode, summary_columns, summary_rows
from HSAMSegmentLib.slicer.panels.batch.batch_table import BatchTable
from HSAMSegmentLib.slicer.panels.batch.useful_scans import SUGGESTED, UsefulScans
from HSAMSegmentLib.slicer.panels.tabs import TabContext
from HSAMSegmentLib.slicer.panels.widgets.check_lists import ScanList
from HSAMSegmentLib.slicer.panels.widgets.combo_entries import fill_combo, select_data
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text
from HSAMSegmentLib.slicer.panels.widgets.model_list import ListedModel
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.events import Failed, ending_of
from HSAMSegmentLib.workflows.segment_folder.folder_request import DONE, FAILED, SKIPPED, BatchRow, FolderRequest
from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestedScan, SuggestRequest

FORM = "HSAMSegmentBatch.ui"
SCENE, SEQUENCE, FOLDER = "scene", "sequence", "folder"
MODE, MODEL, SOURCE, OUTPUT = "BatchMode", "BatchModel", "BatchSource", "BatchOutput"
SEQUENCE_ROLE = "BatchSequence"


class BatchTab:
    """Connects the form with a batch on the engine that all tabs share."""

    def __init__(self, context: TabContext) -> None:
        """Make the form."""
        self._context = context
        self.widget = context.load_form(FORM)
        self.ui = ui = slicer.util.childWidgetVariables(self.widget)
        self._parameters: ParameterNode | None = None
        self._choices: list[ListedModel] = []
        self._batch: AnyBatch | None = None
        self._summary: SummaryNode | None = None
        self._updating = False
        self.status = StatusLine(ui.statusLabel, ui.progressBar, ui.copyDetailsButton, ui.helpLabel, context.dialogs)
        self.scans = ScanList(ui.scanList, ui.allScansButton, ui.noScansButton, self._on_change)
        self.table = BatchTable(ui.batchTable, self._on_row)
        fill_combo(
            ui.modeCombo,
            ((_("Scans of the scene"), SCENE), (_("Frames of a sequence (4-D)"), SEQUENCE), (_("A folder"), FOLDER)),
        )
        self.useful = UsefulScans(ui, context, self.status, self._suggest_request, self._row_of, self.refresh)
        self._connect()
        ui.resultSection.visible = False
        self._say_detail("")

    def _connect(self) -> None:
        ui = self.ui
        ui.modeCombo.connect("currentIndexChanged(int)", self._on_change)
        ui.modelCombo.connect("currentIndexChanged(int)", self._on_change)
        ui.sequenceSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_change)
        ui.sourceEdit.connect("textChanged(QString)", self._on_change)
        ui.outputEdit.connect("textChanged(QString)", self._on_change)
        ui.sourceButton.connect("clicked()", self._on_source)
        ui.outputButton.connect("clicked()", self._on_output)
        ui.batchButton.connect("clicked()", self._on_click)
        ui.saveButton.connect("clicked()", self._on_save)

    # --- what the shell tells

    def show_parameters(self, node) -> None:
        """Show what is chosen in a scene, and what is in it."""
        ui, self._updating = self.ui, True
        self._parameters = ParameterNode(node)
        select_data(ui.modeCombo, node.GetParameter(MODE))
        ui.sequenceSelector.setCurrentNode(self._parameters.reference(SEQUENCE_ROLE))
        ui.sourceEdit.text = node.GetParameter(SOURCE)
        ui.outputEdit.text = node.GetParameter(OUTPUT)
        self._choices = [choice for choice in self._context.models.choices() if choice.is_here]
        fill_combo(ui.modelCombo, [(choice.title, choice.id) for choice in self._choices])
        select_data(ui.modelCombo, node.GetParameter(MODEL) or self._parameters.settings.model)
        self.scans.show()
        self._updating = False
        self._keep()
        self.refresh()

    def refresh(self, *, speak: bool = False) -> None:
        """Turn the button on or off; what is in the way is said beside it.

        Args:
            speak: whether it may be said in the place of a result, because the user just changed something.
        """
        self.useful.refresh(self._useful_obstacle())
        button = self.ui.batchButton
        if self._is_running:
            button.text, button.toolTip, button.enabled = _("Cancel"), _("Stop; what is finished stays."), True
            return
        problem = self._obstacle()
        button.text = _("Segment all")
        button.enabled = not problem
        button.toolTip = problem or _("Segment one after the other; one that fails stops no other.")
        if self.status.is_about_readiness or (problem and speak):
            self.status.say_ready(problem)

    def exit(self) -> None:
        """Another tab or module is in sight; the batch goes on."""

    def leave_scene(self) -> None:
        """The scene is about to be closed: the batch ends, its table goes with the scene."""
        self._parameters, self._summary = None, None
        if self._is_running:
            self._batch.cancel()
        self._batch = None
        self.scans.forget()
        self.useful.forget()
        self.ui.resultSection.visible = False
        self.status.say("")

    def close(self) -> None:
        """The panel goes away."""
        self.useful.forget()
        self._parameters, self._summary, self._batch = None, None, None

    def look_at_scene(self) -> None:
        """Nodes came or went: list the scans anew."""
        if self._parameters is not None and not self._is_running:
            self.scans.show()
            self.refresh()

    def use_model_of(self, written: Written) -> None:
        """Choose the model of a result, and the scans of the scene; its organs are those of the Segment tab."""
        if not self._is_running:
            select_data(self.ui.modeCombo, SCENE)
            select_data(self.ui.modelCombo, written.outcome.model_id)

    # --- what the user chooses

    @property
    def _is_running(self) -> bool:
        return self._batch is not None and self._batch.is_running

    @property
    def mode(self) -> str:
        """`SCENE`, `SEQUENCE` or `FOLDER`."""
        return self.ui.modeCombo.currentData

    @property
    def model(self) -> ListedModel | None:
        """The chosen model."""
        index = self.ui.modelCombo.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else None

    def _on_change(self, *_value) -> None:
        """Keep what the user chose, and say whether everything is ready."""
        if not self._updating and self._parameters is not None:
            self._keep()
            self.refresh(speak=True)

    def _keep(self) -> None:
        """Keep the choices in the scene, and show what belongs to them."""
        ui, node = self.ui, self._parameters.node
        modified = node.StartModify()
        node.SetParameter(MODE, self.mode)
        node.SetParameter(MODEL, self.model.id if self.model is not None else "")
        node.SetParameter(SOURCE, ui.sourceEdit.text)
        node.SetParameter(OUTPUT, ui.outputEdit.text)
        self._parameters.set_reference(SEQUENCE_ROLE, ui.sequenceSelector.currentNode())
        node.EndModify(modified)
        ui.scanGroup.visible = self.mode == SCENE
        ui.sequenceGroup.visible = self.mode == SEQUENCE
        ui.folderGroup.visible = self.mode == FOLDER
        ui.modelInfoLabel.setText(self._model_text())

    def _model_text(self) -> str:
        """The model in a line, and which organs are left out, as on the first tab."""
        if self.model is None:
            return ""
        lines = [self.model.summary()]
        left_out = [name for name in self.model.organs if name not in self._organs()]
        if left_out:
            lines.append(_("Without {names}, as on the tab Segment.").format(names=", ".join(left_out)))
        return "<br>".join(lines)

    def _organs(self) -> tuple[str, ...]:
        """Names of the organs to segment: the choice on the first tab counts for the same model."""
        settings = self._parameters.settings
        left_out = settings.left_out if settings.model == self.model.id else ()
        return tuple(name for name in self.model.organs if name not in left_out)

    def _on_source(self) -> None:
        path = self._context.dialogs.folder_path(_("Folder with scans"), self.ui.sourceEdit.text)
        if not path:
            return
        self.ui.sourceEdit.text = path
        if not self.ui.outputEdit.text:
            self.ui.outputEdit.text = str(Path(path).with_name(Path(path).name + " organs"))

    def _on_output(self) -> None:
        path = self._context.dialogs.folder_path(_("Folder for the results"), self.ui.outputEdit.text)
        if path:
            self.ui.outputEdit.text = path

    def _obstacle(self) -> str:
        if self._context.engine.is_busy:
            return _("Another job is running; wait for its end or cancel it where it was started.")
        if self.model is None:
            return _("There is no model on this computer. Download or import one on the tab Segment.")
        if self.model.organs and not self._organs():
            return _("No organ is checked on the tab Segment. Check at least one.")
        return {SCENE: self._scene_obstacle, SEQUENCE: self._sequence_obstacle, FOLDER: self._folder_obstacle}[
            self.mode
        ]()

    def _scene_obstacle(self) -> str:
        if not self.scans.count:
            return _("There is no scan in the scene. Load some, or choose a folder.")
        return "" if self.scans.checked else _("Check at least one scan.")

    def _sequence_obstacle(self) -> str:
        return sequences_missing() or sequence_problem(self.ui.sequenceSelector.currentNode())

    def _source_obstacle(self) -> str:
        source = self.ui.sourceEdit.text.strip()
        if not source:
            return _("Choose the folder with the scans.")
        return "" if Path(source).is_dir() else _("There is no folder {path}.").format(path=source)

    def _useful_obstacle(self) -> str:
        """Why nothing can be suggested now."""
        if self._context.engine.is_busy:
            return _("Another job is running; wait for its end or cancel it where it was started.")
        if self.model is None:
            return _("There is no model on this computer. Download or import one on the tab Segment.")
        return self._source_obstacle()

    def _suggest_request(self) -> SuggestRequest:
        source = self.ui.sourceEdit.text.strip()
        return SuggestRequest(source, SUGGESTED, self.model.id, self._parameters.settings.device)

    def _row_of(self, scan: SuggestedScan) -> BatchRow:
        """What the batch knows of a scan; without a batch, where the scan is."""
        rows = self._batch.rows if self._batch is not None else ()
        found = (row for row in rows if (row.path, row.series) == (scan.path, scan.series))
        return next(found, BatchRow(scan.name, path=scan.path, series=scan.series))

    def _folder_obstacle(self) -> str:
        problem = self._source_obstacle()
        if problem:
            return problem
        source, output = self.ui.sourceEdit.text.strip(), self.ui.outputEdit.text.strip()
        if not output:
            return _("Choose a folder for the results.")
        if Path(output).resolve() == Path(source).resolve():
            return _(
                "The results cannot go into the folder of the scans itself. Choose another folder, such as one in it."
            )
        return ""

    # --- the batch

    def _on_click(self) -> None:
        if self._is_running:
            self._batch.cancel()
            self.ui.batchButton.enabled = False
            return
        try:
            self._context.dependencies.ensure()
            self.look_at_scene()
            if not self._obstacle():
                self._start()
        except (HSAMSegmentError, OSError) as error:
            self.status.fail(ending_of(error))
        self.refresh()

    def _start(self) -> None:
        summary = SummaryNode(_("Batch summary"))
        batch = self._make_batch(
            BatchListener(lambda rows: self._on_rows(summary, rows), self._on_progress, self._on_end)
        )
        self._batch, self._summary = batch, summary
        self._say_detail("")
        batch.start()

    def _make_batch(self, listener: BatchListener) -> AnyBatch:
        engine, settings = self._context.engine, self._parameters.settings
        organs = self._organs()
        options = settings.options(organs if organs != self.model.organs else (), None)
        model = self.model.id
        if self.mode == FOLDER:
            folders = (self.ui.sourceEdit.text.strip(), self.ui.outputEdit.text.strip())
            return FolderBatch(FolderRequest(*folders, model, settings.device, options), engine, listener)
        if self.mode == SEQUENCE:
            sequence = self.ui.sequenceSelector.currentNode()
            results = FrameResults(sequence)
            items = [FrameItem(sequence, number, results) for number in range(sequence.GetNumberOfDataNodes())]
        else:
            items = [VolumeItem(node) for node in self.scans.checked]

        def bound(volume) -> BoundRequest:
            return bind_request(volume, model, settings.device, options, undoable=False)

        return Batch(items, engine, bound, listener)

    def _on_rows(self, summary: SummaryNode, rows: tuple[BatchRow, ...]) -> None:
        if summary is not self._summary or not rows:
            return  # the scene that it belonged to is closed
        summary.show(rows)
        self.ui.resultSection.visible = True
        self.table.show(rows)

    def _on_progress(self, progress: Progress) -> None:
        if self._batch is not None:
            self.status.show_progress(progress)
            self.refresh()

    def _on_end(self, reason: SessionEvent | None) -> None:
        if self._batch is None:
            return
        if isinstance(reason, Failed):
            self.status.fail(reason)
        else:
            self.status.say(self._sentence(cancelled=reason is not None))
        self.refresh()

    def _sentence(self, *, cancelled: bool) -> str:
        rows = self._batch.rows
        text = _("{done} of {count} scans segmented").format(done=_count(rows, DONE), count=len(rows))
        for state, words in ((FAILED, _("{count} failed")), (SKIPPED, _("{count} skipped"))):
            if _count(rows, state):
                text += ", " + words.format(count=_count(rows, state))
        if cancelled:
            text = _("Cancelled; what is finished stays. ") + text
        if self._summary is None or not self._summary.node_name:
            return text + "."
        return text + _(". The numbers are in the table '{name}'.").format(name=self._summary.node_name)

    # --- the table

    def _on_row(self, number: int, row: BatchRow) -> None:
        """Say what there is to say of a scan, and show it; from a folder it is loaded first."""
        detail = _detail(row)
        self._say_detail(f"{detail} " + _("Loading..."))
        self.ui.detailLabel.repaint()  # loading keeps the application from doing so
        try:
            if self._batch is not None:
                self._batch.show(number)
        except HSAMSegmentError as error:
            if str(error) not in detail:  # a file that cannot be read failed for the reason that is said already
                detail += " " + _("It cannot be shown: {reason}").format(reason=error)
        self._say_detail(detail)

    def _say_detail(self, text: str) -> None:
        show_text(self.ui.detailLabel, text)
        self.ui.detailLabel.visible = bool(text)

    def _on_save(self) -> None:
        if self._batch is None:
            return
        rows = self._batch.rows
        self.status.save_table("summary.csv", summary_columns(rows), summary_rows(rows))


def build(context: TabContext) -> BatchTab:
    """Make the tab, for the shell."""
    return BatchTab(context)


def _detail(row: BatchRow) -> str:
    parts = [row.message]
    if row.not_found:
        parts.append(_("Not found: {names}.").format(names=", ".join(row.not_found)))
    if row.output:
        parts.append(_("Result: {name}.").format(name=row.output))
    said = " ".join(part for part in parts if part)
    return said if row.name in row.message else f"{row.name}: {said}"  # a reason names the file that it is about


def _count(rows: tuple[BatchRow, ...], state: str) -> int:
    return sum(row.state == state for row in rows)
