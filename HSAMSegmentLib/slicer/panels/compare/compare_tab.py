"""The "Compare" tab: how well two segmentations agree, where they do not, and the numbers to keep."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.runtime.progress import Progress
from HSAMSegmentLib.slicer.nodes.navigation import jump_to_world
from HSAMSegmentLib.slicer.nodes.parameter_node import ParameterNode
from HSAMSegmentLib.slicer.nodes.segment_session import Done, SessionEvent, is_in_scene
from HSAMSegmentLib.slicer.nodes.segmentations.comparison import (
    COLUMNS,
    Compared,
    CompareTask,
    match_nodes,
    score_values,
    show_disagreement,
)
from HSAMSegmentLib.slicer.nodes.segmentations.node_layers import node_labels, node_problem
from HSAMSegmentLib.slicer.nodes.segmentations.segments import load_segmentation_file
from HSAMSegmentLib.slicer.panels.compare.compare_tables import PairTable, ScoreTable
from HSAMSegmentLib.slicer.panels.dependencies import COMPARING, Dependencies
from HSAMSegmentLib.slicer.panels.engine import Engine
from HSAMSegmentLib.slicer.panels.tabs import TabContext
from HSAMSegmentLib.slicer.panels.widgets.long_words import show_text, tell_whole_names
from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
from HSAMSegmentLib.workflows.compare.compare_request import CompareOutcome
from HSAMSegmentLib.workflows.events import Cancelled, Failed, ending_of

FORM = "HSAMSegmentCompare.ui"
FIRST, SECOND = "CompareFirst", "CompareSecond"
KINDS = "Segmentations and label maps (*.seg.nrrd *.nrrd *.nii.gz *.nii *.mha *.mhd *.dcm)"


class CompareTab:
    """Connects the form with a worker of its own, so that comparing is possible while something else runs."""

    def __init__(self, context: TabContext, make_engine: Callable[[], Engine] = Engine) -> None:
        """Make the form.

        Args:
            context: what all tabs share.
            make_engine: makes what runs the comparison.
        """
        self.widget = context.load_form(FORM)
        self.ui = ui = slicer.util.childWidgetVariables(self.widget)
        self.engine = make_engine()
        self._dialogs = context.dialogs
        self._dependencies = Dependencies(context.dialogs, packages=COMPARING, torch=None, purpose=_("Comparing"))
        self._parameters: ParameterNode | None = None
        self._shown: tuple[LabelSet | None, LabelSet | None] | None = None
        self._compared: Compared | None = None
        self._overlay = None
        self._known: list = []
        self.status = StatusLine(ui.statusLabel, ui.progressBar, ui.copyDetailsButton, ui.helpLabel, self._dialogs)
        self.pairs = PairTable(ui.pairTable, self.refresh)
        self.scores = ScoreTable(ui.scoreTable, jump_to_world)
        tell_whole_names(ui.firstSelector, ui.secondSelector)
        for selector in (ui.firstSelector, ui.secondSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_node)
        ui.firstFileButton.connect("clicked()", lambda: self._on_file(ui.firstSelector))
        ui.secondFileButton.connect("clicked()", lambda: self._on_file(ui.secondSelector))
        ui.compareButton.connect("clicked()", self._on_compare)
        ui.disagreementButton.connect("clicked()", self._on_disagreement)
        ui.saveButton.connect("clicked()", self._on_save)
        self._clear_result()

    # --- what the shell tells

    def show_parameters(self, node) -> None:
        """Show what is chosen in a scene, two of its segmentations by default."""
        self._parameters = None
        parameters = ParameterNode(node)
        first, second = parameters.reference(FIRST), parameters.reference(SECOND)
        if first is None and second is None:
            first, second = (*_comparable()[:2], None, None)[:2]
        self._known = _comparable()
        self.ui.firstSelector.setCurrentNode(first)
        self.ui.secondSelector.setCurrentNode(second)
        self._parameters = parameters
        self._on_node()
        self._sync_overlay()

    def look_at_scene(self) -> None:
        """Fill what is not chosen with segmentations that were just loaded, and look at the structures again."""
        if self._parameters is None or self.engine.is_busy:
            return
        chosen = self.nodes
        new = [node for node in _comparable() if node not in self._known and node not in chosen]
        self._known = _comparable()
        for selector, node in zip((self.ui.firstSelector, self.ui.secondSelector), chosen):
            if node is None and new:
                selector.setCurrentNode(new.pop(0))
        self._on_node()
        self._sync_overlay()

    def refresh(self) -> None:
        """Turn the button on or off; what is in the way is said beside it."""
        button = self.ui.compareButton
        if self.engine.is_busy:
            button.text, button.toolTip, button.enabled = _("Cancel"), _("Stop; nothing in the scene changes."), True
            return
        problem = self._obstacle()
        button.text = _("Compare")
        button.enabled = not problem
        button.toolTip = problem or _("Compare the paired structures.")
        is_result_left = self._compared is not None and None in self.nodes  # its sentence stays when a node has gone
        if self.status.is_about_readiness or (problem and not is_result_left):
            self.status.say_ready(problem)

    def exit(self) -> None:
        """Another tab or module is in sight; a comparison goes on."""

    def leave_scene(self) -> None:
        """The scene is about to be closed: nothing of it is kept."""
        self._parameters, self._known = None, []
        self._overlay = None
        self.engine.cancel()
        self._clear_result()
        self.status.say("")

    def close(self) -> None:
        """The panel goes away."""
        self._parameters = None
        self.engine.close()

    # --- what the user does

    @property
    def nodes(self) -> tuple:
        """A and B, None where nothing is chosen."""
        return self.ui.firstSelector.currentNode(), self.ui.secondSelector.currentNode()

    def _on_node(self, *_node) -> None:
        if self._parameters is None:
            return
        for role, node in zip((FIRST, SECOND), self.nodes):
            self._parameters.set_reference(role, node)
        self._show_pairs()
        self.refresh()

    def _on_file(self, selector) -> None:
        """Load a file and choose it; an image that is not a segmentation is refused before it is in the scene."""
        path = self._dialogs.open_path(_("Load a segmentation"), KINDS)
        if not path:
            return
        try:
            self._dependencies.ensure()
            node = load_segmentation_file(path)
            selector.setCurrentNode(node)
            if node.GetDescription():
                self.status.say(node.GetDescription())
        except (HSAMSegmentError, OSError) as error:
            self.status.fail(ending_of(error))

    def _show_pairs(self) -> None:
        """Guess anew what is what, if other nodes are chosen or their structures changed."""
        labels = tuple(None if node_problem(node) else node_labels(node) for node in self.nodes)
        if labels == self._shown:
            return
        self._shown = labels
        is_complete = None not in labels
        self.ui.pairSection.visible = is_complete
        if is_complete:
            guesses = match_nodes(*self.nodes)
            self.pairs.show(*labels, guesses)
            self.ui.pairSection.collapsed = _is_plain(guesses)

    def _obstacle(self) -> str:
        first, second = self.nodes
        if first is None or second is None:
            return _("Choose two segmentations: A, and B to compare it with.")
        if first is second:
            return _("A and B are the same segmentation. Choose two.")
        return node_problem(first) or node_problem(second) or self.pairs.problem

    def _on_compare(self) -> None:
        if self.engine.is_busy:
            self.engine.cancel()
            self.ui.compareButton.enabled = False
            return
        before = self._shown
        self._show_pairs()
        if self._shown != before:
            self.status.say(_("The segments changed meanwhile. Look at the pairs under Structures, and click again."))
            return
        try:
            self._dependencies.ensure()
            self.engine.start_task(CompareTask(*self.nodes, self.pairs.pairs), self._on_event)
        except (HSAMSegmentError, OSError) as error:
            self.status.fail(ending_of(error))
        self.refresh()

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, Progress):
            self.status.show_progress(event)
        elif isinstance(event, Done):
            self._show_result(event.value)
        elif isinstance(event, Failed):
            self.status.fail(event)
        elif isinstance(event, Cancelled):
            self.status.say(_("Cancelled. Nothing in the scene changed."))
        self.refresh()

    # --- the result

    def _show_result(self, compared: Compared) -> None:
        with_overlay = is_in_scene(self._overlay)
        self._compared = compared
        outcome = compared.outcome
        self.scores.show(outcome)
        show_text(self.ui.namesLabel, f"A: {outcome.first_name}\nB: {outcome.second_name}")
        show_text(self.ui.notesLabel, "\n".join(_notes(outcome)))
        self.ui.notesLabel.visible = bool(_notes(outcome))
        self.ui.resultSection.visible = True
        self.ui.disagreementButton.enabled = bool(compared.disagreement.any())
        self._remove_overlay()
        if with_overlay:
            self._overlay = show_disagreement(compared)
        self._sync_overlay()
        self.status.say(_sentence(outcome, compared.table_node.GetName()))

    def _clear_result(self) -> None:
        self._compared = None
        self.ui.resultSection.visible = False
        self._sync_overlay()

    def _on_disagreement(self) -> None:
        """Show it, or remove it."""
        if is_in_scene(self._overlay):
            self._remove_overlay()
        elif self._compared is not None:
            self._overlay = show_disagreement(self._compared)
        self._sync_overlay()

    def _sync_overlay(self) -> None:
        """Show whether the overlay is there, which may have been removed, and what its colors mean."""
        is_shown = is_in_scene(self._overlay)
        self.ui.disagreementButton.checked = is_shown
        self.ui.legendLabel.visible = is_shown
        if is_shown:
            self.ui.legendLabel.setText(" &nbsp; ".join(_legend(self._overlay)))

    def _remove_overlay(self) -> None:
        if is_in_scene(self._overlay):
            slicer.mrmlScene.RemoveNode(self._overlay)
        self._overlay = None

    def _on_save(self) -> None:
        if self._compared is not None:
            rows = [score_values(score) for score in self._compared.outcome.scores]
            self.status.save_table("comparison.csv", COLUMNS, rows)


def build(context: TabContext) -> CompareTab:
    """Make the tab, for the shell."""
    return CompareTab(context)


def _comparable() -> list:
    """The segmentations of the scene that can be compared."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if not node_problem(node)]


def _is_plain(guesses) -> bool:
    """Whether a user need not look at the pairs: all were found by name or code, and none is left over."""
    return all(pair.by and pair.by != "value" for pair in guesses)


def _legend(overlay) -> list[str]:
    """The segments of the overlay, each behind a square of its color."""
    segmentation = overlay.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    colors = ["#" + "".join(f"{round(255 * part):02x}" for part in segment.GetColor()) for segment in segments]
    return [
        f'<span style="color:{color}">&#9632;</span> {segment.GetName()}' for color, segment in zip(colors, segments)
    ]


def _sentence(outcome: CompareOutcome, table_name: str) -> str:
    dice, distance = outcome.mean["dice"], outcome.mean["hd95"]
    if dice is None:
        return _("Neither has a voxel of what was compared.")
    text = _("Mean Dice {dice:.3f} over {count} structures").format(dice=dice, count=outcome.counted["dice"])
    if distance is not None:
        text += _(", mean HD95 {distance:.1f} mm over {count}").format(distance=distance, count=outcome.counted["hd95"])
    return text + _(". The numbers are in the table '{name}'.").format(name=table_name)


def _notes(outcome: CompareOutcome) -> list[str]:
    """What a reader of the numbers has to know, one sentence each."""
    notes = list(outcome.notes)
    for state, sentence in (
        ("only in B", _("Only in B: {names}. Dice is 0, distances do not exist.")),
        ("only in A", _("Only in A, empty in B: {names}. Dice is 0, distances do not exist.")),
        ("absent", _("Empty in both: {names}. In no mean.")),
        ("not compared", _("B has no such structure: {names}. Not compared.")),
    ):
        names = ", ".join(score.name for score in outcome.scores if score.state == state)
        if names:
            notes.append(sentence.format(names=names))
    return notes
