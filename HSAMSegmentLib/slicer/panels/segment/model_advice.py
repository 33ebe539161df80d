"""Preselects the model for a scan until the user chooses one, and says whether the chosen one fits."""

from __future__ import annotations

from collections.abc import Sequence

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.slicer.nodes.volumes import descriptions, sampled_volume, volume_problem
from HSAMSegmentLib.slicer.panels.widgets.model_list import ListedModel
from HSAMSegmentLib.workflows.segment.model_choice import Suggestion, doubt_about, suggest_model

SUGGESTED = "SuggestedModel"


class ModelAdvice:
    """About one scan at a time; what it looked up is kept until the scan changes."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._volume: Volume | None = None
        self._texts: tuple[str, ...] = ()
        self._suggestion = Suggestion()

    def suggest(self, volume_node, choices: Sequence[ListedModel]) -> Suggestion:
        """The model to preselect among those that can be used at once."""
        self._look(volume_node)
        if self._volume is None:
            return Suggestion()
        here = [choice.manifest for choice in choices if choice.is_here and choice.manifest is not None]
        self._suggestion = suggest_model(self._volume, here, self._texts)
        return self._suggestion

    def say(self, volume_node, choice: ListedModel | None) -> str:
        """Why this model was chosen, or what speaks against it; empty if there is nothing to say."""
        self._look(volume_node)
        if self._volume is None or choice is None or choice.manifest is None:
            return ""
        doubt = doubt_about(self._volume, choice.manifest)
        return doubt or (self._suggestion.sentence if choice.id == self._suggestion.model_id else "")

    def _look(self, volume_node) -> None:
        if volume_problem(volume_node):
            self._key, self._volume, self._suggestion = None, None, Suggestion()
            return
        key = (volume_node.GetID(), volume_node.GetImageData().GetMTime(), volume_node.GetName())
        if key != self._key:
            self._key = key
            self._volume, self._texts = sampled_volume(volume_node), descriptions(volume_node)
            self._suggestion = Suggestion()
