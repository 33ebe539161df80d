"""Segment a synthetic scan with a built-in model, and compare with results recorded when the model was made."""

from __future__ import annotations

import json
from dataclasses import dataclass

from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.evaluation.metrics import compare
from HSAMSegmentLib.images.volume import VolumeInput
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry
from HSAMSegmentLib.weights.resources import builtin_models_folder
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.segment.segment_request import SegmentRequest
from HSAMSegmentLib.workflows.segment.segment_scan import segment_scan

RECORD_FILE = "self_test.json"
TOLERANCE = 0.03
"""Largest difference in Dice between computers and precisions; a wrong kernel is far beyond it."""
PHANTOM_SEED = 4
_SIZE, _SPACING_MM = (160, 144, 18), (2.0, 2.2, 15.0)


@dataclass(frozen=True)
class SelfTestResult:
    """Result of the self test.

    Attributes:
        model_id: ID of the model.
        device: device that it ran on.
        dice: Dice of each structure against the ground truth of the synthetic scan.
        recorded: the recorded Dice, empty if there is none.
        seconds: duration.
    """

    model_id: str
    device: str
    dice: dict[str, float]
    recorded: dict[str, float]
    seconds: float

    @property
    def largest_difference(self) -> float:
        """Largest difference in Dice over the structures."""
        return max((abs(self.dice.get(name, 0.0) - value) for name, value in self.recorded.items()), default=0.0)

    @property
    def passes(self) -> bool:
        """Whether this computer reproduces the recorded results."""
        return bool(self.recorded) and self.largest_difference <= TOLERANCE


def run_self_test(context: Context, *, model: str = "abdomen-mr", device: str = "auto") -> SelfTestResult:
    """Segment the synthetic scan.

    Raises:
        HSAMSegmentError: if the model or the device cannot be used.
    """
    volume, truth = abdomen_phantom(seed=PHANTOM_SEED, geometry=phantom_geometry(_SIZE, _SPACING_MM))
    request = SegmentRequest(input=VolumeInput(path=volume.name), model=model, device=device)
    result = segment_scan(request, context, volume)
    scores = compare(result.segmentation, truth).scores
    dice = {score.name: round(float(score.dice or 0.0), 4) for score in scores}
    return SelfTestResult(result.model_id, result.device, dice, _recorded(result.model_id), result.timings_s["total"])


def _recorded(model_id: str) -> dict[str, float]:
    path = builtin_models_folder() / RECORD_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in data["dice"].items()} if data["model"] == model_id else {}
    except (OSError, ValueError, KeyError) as error:
        raise HSAMSegmentError(f"The installation is incomplete: {path} cannot be read ({error}).") from error
