"""The "Fine-tune" tab: labeled scans in, a model out. What happens between is the worker's business."""

from __future__ import annotations

import time
from pathlib import Path

import ctk
import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.finetune.cases import (
    FilePair,
    FinetunePlan,
    LabeledPair,
    NodePair,
    is_same_pair,
    summarize_problem,
)
from HSAMSegmentLib.slicer.nodes.finetune.settings import FinetuneSettings, read_pairs, read_settings, write_settings
from HSAMSegmentLib.slicer.nodes.navigation import active_scan
from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent, Written
from HSAMSegmentLib.slicer.nodes.segmentations.segments import newest_result, scan_of
from HSAMSegmentLib.slicer.panels.engine import Engine
from HSAMSegmentLib.slicer.panels.finetune.case_tables import CaseTable, OrganTable, ask_files
from HSAMSegmentLib.slicer.panels.finetune.correct_view import CorrectView
from HSAMSegmentLib.slicer.panels.finetune.live_view import LiveView
from HSAMSegmentLib.slicer.panels.finetune.my_models import MyModels
from HSAMSegmentLib.slicer.panels.finetune.resume_offer import ResumeOffer
from HSAMSegmentLib.slicer.panels.finetune.run_view import RunView
from HSAMSegmentLib.slicer.panels.finetune.start_choice import AUTO, HEADS, StartChoice, Starts
from HSAMSegmentLib.slicer.panels.tabs import TabContext
from HSAMSegmentLib.slicer.panels.widgets.combo_entries import fill_combo, select_data
from HSAMSegmentLib.slicer.panels.widgets.device_list import DeviceList
from HSAMSegmentLib.slicer.panels.widgets.long_words import tell_whole_names
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.events import Result, ending_of
from HSAMSegmentLib.workflows.finetune.finetune_request import InspectRequest
from HSAMSegmentLib.workflows.finetune.inspect_cases import CaseSummary
from HSAMSegmentLib.workflows.finetune.training_run import UnfinishedRun, new_model_id

CLOSE_SECONDS = 2.5


class FinetuneTab:
    """Connects the widgets of the form with the cases, the worker and the parameter node."""

    def __init__(self, context: TabContext, engine: Engine | None = None) -> None:
        """Take over the widgets.

        Args:
            context: what all tabs share.
            engine: runs the fine-tuning; by default one of its own, so that segmenting stays possible meanwhile.
        """
        self._context = context
        self.widget = context.load_form("HSAMSegmentFinetune.ui")
        self.ui = ui = slicer.util.childWidgetVariables(self.widget)
        self._engine = engine or Engine()
        self._node = None
        self._updating = False
        self.pairs: list[LabeledPair] = []
        self.status = StatusLine(
            ui.finetuneStatusLabel, ui.finetuneProgressBar, ui.finetuneCopyButton, ui.finetuneHelpLabel, context.dialogs
        )
        self.starts = Starts(context.models.store)
        self.cases = CaseTable(ui.caseTable)
        self.organs = OrganTable(ui.finetuneOrganTable, self._on_change)
        self.live = LiveView(ui)
        self.models = MyModels(ui, context, self.status, self._show_starts)
        self.offer = ResumeOffer(ui, context.dialogs, self._go_on)
        self.correct = CorrectView(ui, self.status, self._learn_from_pair)
        self.run = RunView(ui, self._engine, self.live, self.status, self._on_end)
        self.devices = DeviceList(
            ui.finetuneDeviceCombo, ui.finetuneAdvancedSection, lambda: not context.dependencies.missing()
        )
        fill_combo(ui.headCombo, HEADS)
        tell_whole_names(ui.finetuneScanSelector, ui.finetuneSegmentationSelector)
        self._connect()

    def _connect(self) -> None:
        ui = self.ui
        for selector in (ui.finetuneScanSelector, ui.finetuneSegmentationSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_pair)
        for combo in (ui.startCombo, ui.headCombo, ui.finetuneDeviceCombo):
            combo.connect("currentIndexChanged(int)", self._on_change)
        ui.titleEdit.connect("editingFinished()", self._on_change)
        ui.scratchEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.scratchEdit.connect("currentPathChanged(QString)", self._on_change)
        ui.minutesBox.connect("valueChanged(double)", self._on_change)
        ui.liveChartBox.connect("toggled(bool)", self._on_change)
        ui.addPairButton.connect("clicked()", self._add_pair)
        ui.addFilesButton.connect("clicked()", self._add_files)
        ui.removeCaseButton.connect("clicked()", self._remove_case)
        ui.startButton.connect("clicked()", self._on_start)

    # --- what the shell asks for

    def show_parameters(self, node) -> None:
        """Show the settings of a scene and keep them in this parameter node from now on."""
        self._node = None
        settings = read_settings(node)
        self._updating = True
        self._show_starts(settings.start_from)
        self._show_pair()
        self.pairs = read_pairs(node)
        select_data(self.ui.headCombo, settings.head)
        self.devices.select(settings.device)
        self.ui.minutesBox.value = settings.minutes
        self.ui.titleEdit.setText(settings.title)
        self.ui.liveChartBox.checked = settings.live_chart
        self.ui.scratchEdit.setCurrentPath(settings.scratch)
        self._updating = False
        self._node = node
        self._show_cases(settings.names, settings.left_out)
        self.models.show()
        self._show_offer()
        self._inspect_files()

    def look_at_scene(self) -> None:
        """Choose a pair that was just loaded, if none is chosen yet."""
        if self._node is not None:
            self._show_pair()

    def refresh(self) -> None:
        """The shared engine is free again; the fine-tuning has its own."""

    def exit(self) -> None:
        """Another tab or module is in sight; a running fine-tuning goes on."""

    def leave_scene(self) -> None:
        """The scene is about to be closed: a running fine-tuning has its own copies and goes on."""
        self._node = None
        self.pairs = []
        self.live.forget_nodes()

    def close(self) -> None:
        """The panel goes away: a running fine-tuning is paused, so that the next start offers it."""
        self._node = None
        self.devices.close()
        self.models.close()
        if self.run.is_busy:
            self.run.ask_for_pause()
            deadline = time.monotonic() + CLOSE_SECONDS
            while self.run.is_busy and time.monotonic() < deadline:
                slicer.app.processEvents()
                time.sleep(0.01)
        self._engine.close()

    def show_result(self, written: Written) -> None:
        """Choose a result and its scan, to correct and learn from them."""
        self.ui.finetuneSegmentationSelector.setCurrentNode(written.segmentation_node)
        self.ui.finetuneScanSelector.setCurrentNode(written.volume_node)

    # --- cases

    def _show_pair(self) -> None:
        """Preselect the newest result with its scan, else the scan that is in sight."""
        ui = self.ui
        if ui.finetuneSegmentationSelector.currentNode() is None:
            ui.finetuneSegmentationSelector.setCurrentNode(newest_result())
        if ui.finetuneScanSelector.currentNode() is None:
            scan = scan_of(ui.finetuneSegmentationSelector.currentNode()) or active_scan()
            ui.finetuneScanSelector.setCurrentNode(scan)
        self._on_pair()

    def _on_pair(self, *_node) -> None:
        ui = self.ui
        volume, segmentation = ui.finetuneScanSelector.currentNode(), ui.finetuneSegmentationSelector.currentNode()
        if segmentation is not None and volume is None and scan_of(segmentation) is not None:
            ui.finetuneScanSelector.setCurrentNode(scan_of(segmentation))
            return
        problem = _("Choose a scan and its segmentation.")
        if volume is not None and segmentation is not None:
            problem = summarize_problem(volume, segmentation)
        ui.addPairButton.enabled = not problem
        ui.addPairButton.toolTip = problem or _("Add the scan with its segmentation to the list.")
        self.correct.show(volume, segmentation, self.starts.title_of)

    def _add_pair(self) -> None:
        pair = NodePair(self.ui.finetuneScanSelector.currentNode(), self.ui.finetuneSegmentationSelector.currentNode())
        self._add(pair)

    def _add(self, pair: LabeledPair) -> None:
        """Add a case; the same pair again replaces its row."""
        self.pairs = [other for other in self.pairs if not is_same_pair(other, pair)] + [pair]
        self._show_cases(self.organs.chosen_names, self.organs.left_out)

    def _add_files(self) -> None:
        pair = ask_files(self._context.dialogs)
        if pair is not None:
            self._add(pair)
            self._inspect_files()

    def _remove_case(self) -> None:
        row = self.cases.selected
        if row is not None:
            del self.pairs[row]
            self._show_cases(self.organs.chosen_names, self.organs.left_out)

    def _inspect_files(self) -> None:
        """Let the worker read the next file pair that has not been read."""
        waiting = [pair for pair in self.pairs if isinstance(pair, FilePair) and pair.summary is None]
        if not waiting or self._engine.is_busy or self._context.dependencies.missing():
            return
        pair = waiting[0]

        def on_event(event: SessionEvent) -> None:
            if isinstance(event, Result):
                pair.summary = from_plain(CaseSummary, event.values)
                self._show_cases(self.organs.chosen_names, self.organs.left_out)
                self._inspect_files()

        self._engine.start_request(InspectRequest(pair.image, pair.labels), on_event)

    def _show_cases(self, names: dict[str, str], left_out: tuple[str, ...]) -> None:
        """Look into the scene's cases again, and show cases and organs."""
        for pair in self.pairs:
            if isinstance(pair, NodePair):
                pair.summarize()
        self.cases.show(self.pairs)
        self.ui.removeCaseButton.enabled = bool(self.pairs)
        self.organs.show(self._usable, names, left_out)
        self._on_change()

    @property
    def _usable(self) -> list[CaseSummary]:
        return [pair.summary for pair in self.pairs if pair.summary is not None and not pair.summary.problem]

    # --- settings

    @property
    def settings(self) -> FinetuneSettings:
        """What the widgets say."""
        ui = self.ui
        return FinetuneSettings(
            title=ui.titleEdit.text.strip(),
            start_from=ui.startCombo.currentData or AUTO,
            head=ui.headCombo.currentData or "",
            minutes=ui.minutesBox.value,
            device=ui.finetuneDeviceCombo.currentData,
            scratch=ui.scratchEdit.currentPath.strip(),
            names=self.organs.chosen_names,
            left_out=self.organs.left_out,
            live_chart=ui.liveChartBox.checked,
            files=tuple((pair.image, pair.labels) for pair in self.pairs if isinstance(pair, FilePair)),
        )

    @property
    def scratch_folder(self) -> Path:
        """Where training runs get their folders."""
        chosen = self.ui.scratchEdit.currentPath.strip()
        return Path(chosen).expanduser() if chosen else self._context.models.store.folder / "teaching"

    def _show_starts(self, selected: str = "") -> None:
        selected = selected or self.ui.startCombo.currentData or AUTO
        self.starts.refresh()
        was_blocked = self.ui.startCombo.blockSignals(True)
        fill_combo(self.ui.startCombo, self.starts.combo_entries())
        select_data(self.ui.startCombo, selected)
        self.ui.startCombo.blockSignals(was_blocked)

    @property
    def _start_choice(self) -> StartChoice:
        modality = next((summary.modality for summary in self._usable if summary.modality), "")
        return self.starts.resolve(self.ui.startCombo.currentData or AUTO, self.organs.learned, modality)

    @property
    def _title(self) -> str:
        names = list(self.organs.learned)
        default = _("My {organs}").format(organs=", ".join(names[:3]))
        if len(names) > 3:
            default = _("{title} and {count} more").format(title=default, count=len(names) - 3)
        return self.ui.titleEdit.text.strip() or default

    def _on_change(self, *_value) -> None:
        """Keep the settings in the scene, and say whether a fine-tuning can start and what it will need."""
        if self._updating or self._node is None:
            return
        write_settings(self._node, self.settings, self.pairs)
        self.ui.titleEdit.setPlaceholderText(self._title if self.organs.learned else "")
        self.refresh_buttons(speak=True)

    def refresh_buttons(self, *, speak: bool = False) -> None:
        """Turn the buttons on or off; what is in the way is said beside them.

        Args:
            speak: whether it may be said in the place of another sentence, because the user just changed something.
        """
        problem = self._obstacle()
        busy = self.run.is_busy
        self.ui.startButton.enabled = not problem and not busy
        self.ui.learnButton.enabled = not busy
        self.ui.startButton.toolTip = problem or _("Learn in the background; Slicer can be used meanwhile.")
        self.run.refresh_buttons()
        if not busy and ((speak and problem) or self.status.is_about_readiness):
            self.status.say_ready(problem)

    def _obstacle(self) -> str:
        """The first thing that keeps a fine-tuning from starting, as a sentence."""
        self.ui.estimateLabel.visible = False
        if not self.pairs:
            return _("Add at least one scan with its segmentation.")
        for pair in self.pairs:
            if pair.summary is None:
                return _("A file is being read.")
            if pair.summary.problem:
                return f"{pair.summary.name}: {pair.summary.problem}"
        if not self.organs.learned:
            return _("Check at least one organ to learn.")
        return self._say_estimate()

    def _say_estimate(self) -> str:
        start = self._start_choice
        found = self.starts.estimate(
            start,
            self.ui.headCombo.currentData or "",
            self.organs.learned,
            self._usable,
            device=self.ui.finetuneDeviceCombo.currentData,
            copied_bytes=sum(pair.export_bytes for pair in self.pairs),
            minutes=self.ui.minutesBox.value,
            scratch=self.scratch_folder,
        )
        text = _("Starts from {title}. {needs}").format(title=start.title, needs=found.sentence)
        self.ui.estimateLabel.setText(text)
        self.ui.estimateLabel.visible = True
        return found.problem

    # --- start and end

    def _on_start(self) -> None:
        self._try(self._start)

    def _start(self) -> None:
        self._context.dependencies.ensure()
        self._show_cases(self.organs.chosen_names, self.organs.left_out)  # the scene may have changed since
        if self._obstacle():
            return
        start, title = self._start_choice, self._title
        plan = FinetunePlan(
            pairs=tuple(self.pairs),
            names=self.organs.names,
            left_out=self.organs.left_out,
            model_id=new_model_id(title, self.starts.taken_ids()),
            title=title,
            start_from=start.model,
            encoder=start.encoder,
            head=self.ui.headCombo.currentData or "",
            minutes=self.ui.minutesBox.value,
            device=self.ui.finetuneDeviceCombo.currentData,
            scratch=self.scratch_folder,
            store=self._context.models.store,
        )
        self.run.start(plan)
        self.offer.hide()

    def _go_on(self, training_run: UnfinishedRun, finish_now: bool) -> None:
        def go_on() -> None:
            self._context.dependencies.ensure()
            self.run.go_on(training_run, finish_now)
            self.offer.hide()

        self._try(go_on)

    def _learn_from_pair(self, model_id: str) -> None:
        """Add the corrected pair and go on from the model that made it."""
        self._add_pair()
        if self.starts.knows(model_id):
            select_data(self.ui.startCombo, model_id)
        self.refresh_buttons()
        if self.ui.startButton.enabled:
            self._on_start()

    def _try(self, action) -> None:
        try:
            action()
        except (HSAMSegmentError, OSError) as error:
            self.status.fail(ending_of(error))
        self.refresh_buttons()

    def _on_end(self, model_id: str) -> None:
        """A fine-tuning ended; a new model may be there."""
        self._show_starts()
        self.models.show(model_id)
        self._show_offer()
        self.refresh_buttons()
        self._inspect_files()

    def _show_offer(self) -> None:
        if self.run.is_busy:
            self.offer.hide()
        else:
            self.offer.show((self.scratch_folder, self._context.models.store.folder / "teaching"))


def build(context: TabContext) -> FinetuneTab:
    """Make the tab, for the shell."""
    return FinetuneTab(context)
