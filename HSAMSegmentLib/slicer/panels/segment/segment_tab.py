"""The "Segment organs" panel: what the user sees and clicks. What happens then is the engine's business."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.runtime.serialization import from_plain
from HSAMSegmentLib.slicer.nodes.live_preview import LivePreview
from HSAMSegmentLib.slicer.nodes.navigation import active_scan
from HSAMSegmentLib.slicer.nodes.parameter_node import OUTPUT, REGION, SCAN, PanelSettings, ParameterNode
from HSAMSegmentLib.slicer.nodes.segment_session import SessionEvent, Written, bind_request, is_in_scene
from HSAMSegmentLib.slicer.nodes.volumes import roi_bounds, volume_problem
from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
from HSAMSegmentLib.slicer.panels.engine import Engine, is_last
from HSAMSegmentLib.slicer.panels.segment.model_advice import SUGGESTED, ModelAdvice
from HSAMSegmentLib.slicer.panels.segment.readiness import download_question, obstacle
from HSAMSegmentLib.slicer.panels.segment.result_view import ResultView
from HSAMSegmentLib.slicer.panels.tabs import BATCH, FINETUNE, TabContext
from HSAMSegmentLib.slicer.panels.widgets.check_lists import CheckList
from HSAMSegmentLib.slicer.panels.widgets.combo_entries import QUALITIES, fill_combo, select_data
from HSAMSegmentLib.slicer.panels.widgets.device_list import DeviceList
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs, SlicerDialogs
from HSAMSegmentLib.slicer.panels.widgets.long_words import tell_whole_names
from HSAMSegmentLib.slicer.panels.widgets.model_list import ListedModel, ModelSource, StoreModels
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.slicer.panels.widgets.theme import quiet_color
from HSAMSegmentLib.workflows.events import Cancelled, Failed, Preview, Result, ending_of
from HSAMSegmentLib.workflows.requests import ImportedModel, Request

logger = logging.getLogger(__name__)


class SegmentTab:
    """Connects the widgets of the form with the engine and the parameter node."""

    def __init__(
        self,
        widget,
        engine: Engine,
        *,
        models: ModelSource | None = None,
        dialogs: Dialogs | None = None,
        dependencies: Dependencies | None = None,
        learn_from: Callable[[Written], None] | None = None,
        more_scans: Callable[[Written], None] | None = None,
    ) -> None:
        """Take over the widgets.

        Args:
            widget: the form, `HSAMSegment.ui`.
            engine: runs the jobs.
            models: where the list of models comes from.
            dialogs: asks the user.
            dependencies: knows which packages are missing.
            learn_from: shows a result where it can be corrected and learned from.
            more_scans: takes the model and the organs of a result to where many scans are segmented.
        """
        self.widget = widget
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        self._engine = engine
        self._models = models or StoreModels()
        self._dialogs = dialogs or SlicerDialogs()
        self._dependencies = dependencies or Dependencies(self._dialogs)
        self._parameters: ParameterNode | None = None
        self._choices: list[ListedModel] = []
        self._updating = False
        self._preview = LivePreview()
        self._segmented_scan = None
        self._known_scans: list = []
        self._advice = ModelAdvice()
        self._on_result: Callable[[dict[str, Any]], None] = self._on_downloaded
        self.status = StatusLine(ui.statusLabel, ui.progressBar, ui.copyDetailsButton, ui.helpLabel, self._dialogs)
        self.organs = CheckList(ui.organList, ui.allOrgansButton, ui.noOrgansButton, self._on_change)
        self.result = ResultView(ui, engine.history, self._dialogs, self.status, learn_from, more_scans)
        self.devices = DeviceList(ui.deviceCombo, ui.advancedSection, lambda: not self._dependencies.missing())
        fill_combo(ui.qualityCombo, QUALITIES)
        tell_whole_names(ui.scanSelector, ui.outputSelector, ui.regionSelector)
        ui.researchLabel.setStyleSheet(f"QLabel {{ color: {quiet_color()}; }}")
        self._connect()

    def _connect(self) -> None:
        ui = self.ui
        ui.scanSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_scan)
        for selector in (ui.outputSelector, ui.regionSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_change)
        for combo in (ui.deviceCombo, ui.qualityCombo):
            combo.connect("currentIndexChanged(int)", self._on_change)
        for box in (ui.largestPieceBox, ui.fillHolesBox, ui.show3DBox, ui.previewBox):
            box.connect("toggled(bool)", self._on_change)
        ui.minimumBox.connect("valueChanged(double)", self._on_change)
        ui.modelCombo.connect("currentIndexChanged(int)", self._on_model)
        ui.importModelButton.connect("clicked()", self._on_import)
        ui.applyButton.connect("clicked()", self._on_apply)

    # --- the scene and its parameter node

    def show_parameters(self, node) -> None:
        """Show the settings of a scene and keep them in this parameter node from now on."""
        self._parameters = None
        parameters = ParameterNode(node)
        self._choices = self._models.choices()
        self._updating = True
        self._show_nodes(parameters)
        self._show_settings(parameters.settings)
        self._updating = False
        self._parameters = parameters
        self._on_scan()

    def look_at_scene(self) -> None:
        """Choose a scan that was just loaded: what the slice views show now, else any if none was chosen."""
        if self._parameters is None or self._is_running:
            return
        new = [node for node in _usable_scans() if node not in self._known_scans]
        self._known_scans = _usable_scans()
        is_chosen = self.ui.scanSelector.currentNode() is not None
        if active_scan() in new:
            self.ui.scanSelector.setCurrentNode(active_scan())
        elif new and not is_chosen:
            self.ui.scanSelector.setCurrentNode(new[0])

    def refresh(self) -> None:
        """The engine is free again."""
        if self._parameters is not None:
            self.refresh_button()

    def exit(self) -> None:
        """Another tab or module is in sight; a running job goes on."""

    def leave_scene(self) -> None:
        """The scene is about to be closed: a running job ends, nothing of it is kept."""
        self._parameters, self._known_scans = None, []
        self._engine.cancel()
        self._engine.history.forget()
        self._preview.clear()
        self.result.clear()
        self.status.say("")

    def close(self) -> None:
        """The panel goes away."""
        self._parameters = None
        self._preview.clear()
        self.devices.close()

    def _show_nodes(self, parameters: ParameterNode) -> None:
        ui = self.ui
        self._known_scans = _usable_scans()
        scan = parameters.reference(SCAN) or active_scan() or next(iter(self._known_scans), None)
        ui.scanSelector.setCurrentNode(scan)
        ui.outputSelector.setCurrentNode(parameters.reference(OUTPUT))
        ui.regionSelector.setCurrentNode(parameters.reference(REGION))

    def _show_settings(self, settings: PanelSettings) -> None:
        ui = self.ui
        fill_combo(ui.modelCombo, [(choice.title, choice.id) for choice in self._choices])
        select_data(ui.modelCombo, settings.model)
        self.devices.select(settings.device)
        select_data(ui.qualityCombo, settings.quality)
        ui.largestPieceBox.checked = settings.largest_piece
        ui.fillHolesBox.checked = settings.fill_holes
        ui.minimumBox.value = settings.minimum_ml
        ui.show3DBox.checked = settings.show_3d
        ui.previewBox.checked = settings.preview
        self._show_model(settings.left_out)

    def _show_model(self, left_out: tuple[str, ...] = ()) -> None:
        choice = self.model
        said = self._advice.say(self.ui.scanSelector.currentNode(), choice)
        summary = choice.summary() if choice is not None else ""
        self.ui.modelInfoLabel.setText("<br>".join(line for line in (summary, said) if line))
        self.ui.modelCombo.toolTip = choice.description if choice is not None else ""
        self.organs.show(choice.organs if choice is not None else (), left_out)

    @property
    def model(self) -> ListedModel | None:
        """The chosen model."""
        index = self.ui.modelCombo.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else None

    @property
    def settings(self) -> PanelSettings:
        """What the widgets say."""
        ui = self.ui
        return PanelSettings(
            model=self.model.id if self.model is not None else "",
            left_out=self.organs.left_out,
            device=ui.deviceCombo.currentData,
            quality=ui.qualityCombo.currentData,
            largest_piece=ui.largestPieceBox.checked,
            fill_holes=ui.fillHolesBox.checked,
            minimum_ml=ui.minimumBox.value,
            show_3d=ui.show3DBox.checked,
            preview=ui.previewBox.checked,
        )

    # --- what the user does

    def _on_scan(self, *_node) -> None:
        """Preselect the model for a scan, unless the user chose one; say whether it fits."""
        if self._updating or self._parameters is None:
            return
        node, before, left_out = self._parameters.node, self.model, self.organs.left_out
        suggestion = self._advice.suggest(self.ui.scanSelector.currentNode(), self._choices)
        self._updating = True
        if self._parameters.settings.model in ("", node.GetParameter(SUGGESTED)):
            if suggestion.model_id:
                select_data(self.ui.modelCombo, suggestion.model_id)
            node.SetParameter(SUGGESTED, self.model.id if self.model is not None else "")
        self._show_model(left_out if self.model is before else ())
        self._updating = False
        self._on_change()

    def _on_model(self, *_index) -> None:
        if not self._updating:
            self._updating = True
            self._show_model()
            self._updating = False
            self._on_change()

    def _on_change(self, *_value) -> None:
        """Keep the settings in the scene, and say whether everything is ready."""
        if self._updating or self._parameters is None:
            return
        modified = self._parameters.node.StartModify()
        self._parameters.settings = self.settings
        self._parameters.set_reference(SCAN, self.ui.scanSelector.currentNode())
        self._parameters.set_reference(OUTPUT, self.ui.outputSelector.currentNode())
        self._parameters.set_reference(REGION, self.ui.regionSelector.currentNode())
        self._parameters.node.EndModify(modified)
        self.refresh_button()

    def refresh_button(self) -> None:
        """Turn the button on or off; what is in the way is said beside it."""
        button = self.ui.applyButton
        self.ui.importModelButton.enabled = not self._engine.is_busy
        if self._is_running:
            button.text, button.toolTip, button.enabled = _("Cancel"), _("Stop; nothing in the scene changes."), True
            return
        problem = self._obstacle()
        button.text = _("Segment organs")
        button.enabled = not problem
        button.toolTip = problem or _("Segment the chosen organs.")
        is_result_left = self.result.is_shown and self.ui.scanSelector.currentNode() is None  # its sentence stays
        if self.status.is_about_readiness or (problem and not is_result_left):
            self.status.say_ready(problem)

    @property
    def _is_running(self) -> bool:
        """Whether the job that runs now is this panel's."""
        return self._engine.is_busy and not self._engine.is_taken_by_other(self._on_event)

    def _obstacle(self) -> str:
        ui = self.ui
        if self._engine.is_taken_by_other(self._on_event):
            return _("Another job is running; wait for its end or cancel it where it was started.")
        return obstacle(
            ui.scanSelector.currentNode(),
            self.model,
            self.organs.checked,
            ui.outputSelector.currentNode(),
            ui.regionSelector.currentNode(),
        )

    def _on_import(self) -> None:
        path = self._dialogs.open_path(_("Import a model"), "Weights (*.safetensors *.pth *.pt)")
        if not path:
            return
        try:
            self._start_request(self._models.import_request(path), self._on_imported)
        except (HSAMSegmentError, OSError) as error:
            self.status.fail(ending_of(error))
        self.refresh_button()

    def _start_request(self, request: Request, on_result: Callable[[dict[str, Any]], None]) -> None:
        """Run an import or a download in the place of a segmentation; `on_result` gets the values of its result."""
        self._engine.start_request(request, self._on_event)
        self._on_result = on_result

    def _on_imported(self, values: dict[str, Any]) -> None:
        imported = from_plain(ImportedModel, values)
        self._refresh_models(imported.id)
        self.status.say(" ".join((_("'{title}' was imported.").format(title=imported.title), *imported.missing)))

    def _refresh_models(self, identifier: str) -> None:
        self._choices = self._models.choices()
        self._updating = True
        self._show_settings(replace(self.settings, model=identifier))
        self._updating = False
        self._on_change()

    def _on_apply(self) -> None:
        if self._is_running:
            self._engine.cancel()
            self.ui.applyButton.enabled = False
            return
        try:
            self._start()
        except HSAMSegmentError as error:
            self.status.fail(ending_of(error))
        self.refresh_button()

    def _start(self) -> None:
        """Install and download what is missing, after questions, then segment."""
        self._dependencies.ensure()
        choice = self.model
        if choice.is_here:
            self._segment()
        elif self._dialogs.confirm(_("Download the model"), download_question(choice)):
            self._start_request(self._models.download_request(choice.downloads[0]), self._on_downloaded)

    def _segment(self) -> None:
        volume, roi_node = self.ui.scanSelector.currentNode(), self.ui.regionSelector.currentNode()
        organs = self.organs.checked if self.organs.left_out else ()
        roi = roi_bounds(roi_node, volume) if roi_node is not None else None
        settings = self.settings
        bound = bind_request(
            volume_node=volume,
            model=self.model.id,
            device=settings.device,
            options=settings.options(organs, roi),
            segmentation_node=self.ui.outputSelector.currentNode(),
            surfaces=settings.show_3d,
            preview=settings.preview,
        )
        self.result.clear()
        self._engine.start(bound, self._on_event)
        self._segmented_scan = volume

    # --- what the engine says

    def _on_event(self, event: SessionEvent) -> None:
        if is_last(event):
            self._preview.clear()
        if isinstance(event, Progress):
            self.status.show_progress(event)
        elif isinstance(event, Preview):
            self._show_preview(event)
        elif isinstance(event, Written):
            self._on_written(event)
        elif isinstance(event, Result):
            self._on_result(event.values)
        elif isinstance(event, Failed):
            self.status.fail(event)
        elif isinstance(event, Cancelled):
            self.status.say(_("Cancelled. Nothing in the scene changed."))
        self.refresh_button()

    def _show_preview(self, preview: Preview) -> None:
        if is_in_scene(self._segmented_scan):
            self._preview.show(self._segmented_scan, preview)

    def _on_written(self, written: Written) -> None:
        self.result.show(written, show_3d=self.ui.show3DBox.checked)
        self.status.say(self.result.sentence(written))

    def _on_downloaded(self, values: dict[str, Any]) -> None:
        """Go on with the next missing file, or with the segmentation that the user clicked for."""
        self._refresh_models(self.model.id)
        if not self.model.is_here and self.model.downloads:
            self._start_request(self._models.download_request(self.model.downloads[0]), self._on_downloaded)
        elif self._obstacle():
            self.status.say(_("The model was downloaded."))
        else:
            self._try_segment()

    def _try_segment(self) -> None:
        try:
            self._segment()
        except HSAMSegmentError as error:
            self.status.fail(ending_of(error))


def build(context: TabContext) -> SegmentTab:
    """Make the tab, for the shell."""
    form = context.load_form("HSAMSegment.ui")
    return SegmentTab(
        form,
        context.engine,
        models=context.models,
        dialogs=context.dialogs,
        dependencies=context.dependencies,
        learn_from=lambda written: context.open_tab(FINETUNE).show_result(written),
        more_scans=lambda written: context.open_tab(BATCH).use_model_of(written),
    )


def _usable_scans() -> list:
    """The volumes of the scene that can be segmented."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if is_in_scene(node) and not volume_problem(node)]
