"""The tabs of the module's panel: which there are, and what each of them must offer.

To add or replace a tab, write a function `build(context: TabContext) -> Tab` and name it in `TABS`. Its module is
imported, and the function called, when the user opens it for the first time, so a tab costs nothing before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from slicer.i18n import tr as _

from HSAMSegmentLib.slicer.panels.dependencies import Dependencies
from HSAMSegmentLib.slicer.panels.engine import Engine
from HSAMSegmentLib.slicer.panels.widgets.dialogs import Dialogs
from HSAMSegmentLib.slicer.panels.widgets.model_list import ModelSource

SEGMENT, FINETUNE, COMPARE, BATCH = "segment", "finetune", "compare", "batch"


class Tab(Protocol):
    """What the shell asks of a tab. All calls come on the main thread.

    Attributes:
        widget: the root widget, which the shell puts on its page.
    """

    widget: Any

    def show_parameters(self, node) -> None:
        """The tab is in sight, or the scene is a new one: show it, and keep settings in this parameter node.

        Called when the tab or the module is opened, and after a scene was closed or loaded.
        """

    def look_at_scene(self) -> None:
        """Nodes came or went while the part is in sight: list them anew, and choose what was just loaded."""

    def refresh(self) -> None:
        """The shared engine is free again: say anew what can be started."""

    def exit(self) -> None:
        """Another tab or module is in sight; a running job goes on."""

    def leave_scene(self) -> None:
        """The scene is about to be closed: end what belongs to it, hold no node any longer."""

    def close(self) -> None:
        """The module is reloaded or the application ends: end everything that the tab started."""


@dataclass(frozen=True)
class TabContext:
    """What all tabs share.

    Attributes:
        engine: runs one job at a time for the whole module, its worker keeps the model loaded. A tab whose jobs shall
            run beside those of the others makes an `Engine` of its own, and closes it.
        models: where the list of models comes from.
        dialogs: asks the user.
        dependencies: knows which packages are missing, and installs them after a question.
        load_form: makes the widgets of a form, given its file name in `Resources/UI`, bound to the scene.
        open_tab: brings another tab into sight, given its key, and returns it: "Learn from this scan".
    """

    engine: Engine
    models: ModelSource
    dialogs: Dialogs
    dependencies: Dependencies
    load_form: Callable[[str], Any]
    open_tab: Callable[[str], Tab]


@dataclass(frozen=True)
class TabEntry:
    """One tab.

    Attributes:
        key: what other tabs call it by.
        title: on the tab.
        hint: its tooltip.
        builder: "module:function" of its `build`.
    """

    key: str
    title: str
    hint: str
    builder: str


TABS = (
    TabEntry(
        SEGMENT,
        _("Segment"),
        _("Segment the organs of a scan with one click."),
        "HSAMSegmentLib.slicer.panels.segment.segment_tab:build",
    ),
    TabEntry(
        FINETUNE,
        _("Fine-tune"),
        _("Make your own model from labeled scans."),
        "HSAMSegmentLib.slicer.panels.finetune.finetune_tab:build",
    ),
    TabEntry(
        COMPARE,
        _("Compare"),
        _("Dice, distances and volumes of two segmentations."),
        "HSAMSegmentLib.slicer.panels.compare.compare_tab:build",
    ),
    TabEntry(
        BATCH,
        _("Batch"),
        _("Segment many scans, a sequence, or a folder."),
        "HSAMSegmentLib.slicer.panels.batch.batch_tab:build",
    ),
)
