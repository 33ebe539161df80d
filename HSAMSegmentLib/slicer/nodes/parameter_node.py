"""The panel's settings in a parameter node, which is saved with the scene and restored from it.

They are one JSON text under one name, as in all scenes since version 0.1. Slicer's `parameterNodeWrapper` writes each
field under a name of its own and reads no such text: it would add a second format without replacing the first.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass

from HSAMSegmentLib.inference.options import PostprocessOptions, SegmentOptions

logger = logging.getLogger(__name__)

SETTINGS = "Settings"
SCAN, OUTPUT, REGION = "Scan", "Output", "Region"


@dataclass(frozen=True)
class PanelSettings:
    """What a user chose, nodes apart.

    Attributes:
        model: model id or file; empty until one was chosen.
        left_out: names of the organs that are switched off.
        device: "auto", "cpu", "cuda:0", ...
        quality: "balanced", "best" for a second, mirrored pass, or "fast" for a single view of each slice.
        largest_piece: keep only the largest piece of organs that are one piece.
        fill_holes: fill cavities.
        minimum_ml: drop pieces below this volume.
        show_3d: compute surfaces and show them.
        preview: show slices while the job runs.
    """

    model: str = ""
    left_out: tuple[str, ...] = ()
    device: str = "auto"
    quality: str = "balanced"
    largest_piece: bool = True
    fill_holes: bool = True
    minimum_ml: float = 0.1
    show_3d: bool = True
    preview: bool = False

    def options(self, organs: tuple[str, ...], roi: tuple[int, int, int, int, int, int] | None) -> SegmentOptions:
        """The engine's options for these settings."""
        tidy = PostprocessOptions(self.largest_piece, self.fill_holes, self.minimum_ml)
        return SegmentOptions(
            organs=organs,
            roi=roi,
            view_averaging=self.quality != "fast",
            flip_averaging=self.quality == "best",
            postprocess=tidy,
        )


class ParameterNode:
    """Typed access to a `vtkMRMLScriptedModuleNode`."""

    def __init__(self, node) -> None:
        self.node = node

    @property
    def settings(self) -> PanelSettings:
        """What is stored; the defaults where nothing, or something of another version, is."""
        text = self.node.GetParameter(SETTINGS)
        if not text:
            return PanelSettings()
        try:
            stored = json.loads(text)
            known = {key: value for key, value in stored.items() if key in PanelSettings.__dataclass_fields__}
            return PanelSettings(**{**known, "left_out": tuple(known.get("left_out", ()))})
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("The settings of the scene cannot be read (%s); the defaults are used.", error)
            return PanelSettings()

    @settings.setter
    def settings(self, settings: PanelSettings) -> None:
        self.node.SetParameter(SETTINGS, json.dumps(asdict(settings)))

    def reference(self, role: str):
        """The node in a role (`SCAN`, `OUTPUT`, `REGION`), or None."""
        return self.node.GetNodeReference(role)

    def set_reference(self, role: str, node) -> None:
        """Put a node, or None, into a role."""
        self.node.SetNodeReferenceID(role, node.GetID() if node is not None else None)
