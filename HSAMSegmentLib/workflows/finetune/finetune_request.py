"""What inspecting a labeled file is asked for, and what comes out of a fine-tuning in the background."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class InspectRequest:
    """Say what is in a scan and its label file, as a case to train on.

    Attributes:
        image: a volume file or DICOM folder.
        labels: a label map or segmentation file.
    """

    kind: ClassVar[str] = "inspect"

    image: str
    labels: str


@dataclass(frozen=True)
class FinetuneOutcome:
    """What came out of a fine-tuning in the background.

    Attributes:
        model_id: id in the store; empty if the training run is paused.
        title: of the model.
        dice: organ to Dice of the kept state on what was held out; empty without validation.
        start_dice: the same before the first step; empty if the starting model knows none of the organs.
        validated_on: what the Dice was measured on, in words.
        seconds: spent on the whole training.
        steps: of the optimizer.
        stopped: "budget", "no more progress", "loss not a number", "stopped", "paused".
        notes: sentences a user should read.
        card: what the model is, for people, a few lines.
    """

    model_id: str
    title: str
    dice: dict[str, float]
    start_dice: dict[str, float] = field(default_factory=dict)
    validated_on: str = ""
    seconds: float = 0.0
    steps: int = 0
    stopped: str = ""
    notes: tuple[str, ...] = ()
    card: str = ""
