"""What a user chose on the Fine-tune tab, in the module's parameter node: saved with the scene and restored from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from HSAMSegmentLib.slicer.nodes.finetune.cases import FilePair, LabeledPair, NodePair
from HSAMSegmentLib.slicer.nodes.segment_session import is_in_scene

logger = logging.getLogger(__name__)

SETTINGS, SCANS, SEGMENTATIONS = "TeachSettings", "TeachScan", "TeachSegmentation"


@dataclass(frozen=True)
class FinetuneSettings:
    """Choices, nodes apart.

    Attributes:
        title: of the new model, empty for one made from its organs.
        start_from: "auto", "scratch" or a model id.
        head: "" for that of the starting model.
        minutes: length.
        device: "auto", "cpu", ...
        scratch: folder, empty for the one beside the models.
        names: name of an organ to the name that it is learned as, where the user changed it.
        left_out: names (as learned) that are not learned.
        files: pairs of scan and label file.
        live_chart: whether the chart comes into sight by itself.
    """

    title: str = ""
    start_from: str = "auto"
    head: str = ""
    minutes: float = 5.0
    device: str = "auto"
    scratch: str = ""
    names: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    live_chart: bool = True


def read_settings(node) -> FinetuneSettings:
    """What a parameter node holds; the defaults where nothing, or something of another version, is."""
    text = node.GetParameter(SETTINGS)
    if not text:
        return FinetuneSettings()
    try:
        stored = json.loads(text)
        known = {key: value for key, value in stored.items() if key in FinetuneSettings.__dataclass_fields__}
        files = tuple((str(image), str(labels)) for image, labels in known.get("files", ()))
        return FinetuneSettings(**{**known, "left_out": tuple(known.get("left_out", ())), "files": files})
    except (ValueError, TypeError, AttributeError) as error:
        logger.warning("The settings of the Fine-tune tab cannot be read (%s); the defaults are used.", error)
        return FinetuneSettings()


def write_settings(node, settings: FinetuneSettings, pairs: Sequence[LabeledPair]) -> None:
    """Keep choices and cases in a parameter node."""
    modified = node.StartModify()
    node.SetParameter(SETTINGS, json.dumps(asdict(settings)))
    node.RemoveNodeReferenceIDs(SCANS)
    node.RemoveNodeReferenceIDs(SEGMENTATIONS)
    for pair in pairs:
        if isinstance(pair, NodePair) and is_in_scene(pair.volume_node) and is_in_scene(pair.segmentation_node):
            node.AddNodeReferenceID(SCANS, pair.volume_node.GetID())
            node.AddNodeReferenceID(SEGMENTATIONS, pair.segmentation_node.GetID())
    node.EndModify(modified)


def read_pairs(node) -> list[LabeledPair]:
    """The cases that a parameter node holds; those whose nodes are gone are left out."""
    pairs: list[LabeledPair] = []
    for index in range(node.GetNumberOfNodeReferences(SCANS)):
        volume = node.GetNthNodeReference(SCANS, index)
        segmentation = node.GetNthNodeReference(SEGMENTATIONS, index)
        if volume is not None and segmentation is not None:
            pairs.append(NodePair(volume, segmentation))
    return pairs + [FilePair(image, labels) for image, labels in read_settings(node).files]
