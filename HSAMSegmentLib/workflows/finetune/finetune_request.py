"""Request for inspecting a labeled file, and outcome of a fine-tuning in the background."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class InspectRequest:
    """Summarize a scan and its label file as a training case.

    Attributes:
        image: a volume file or DICOM folder.
        labels: a label map or segmentation file.
    """

    kind: ClassVar[str] = "inspect"

    image: str
    labels: str


@dataclass(frozen=True)
class FinetuneOutcome:
    """The outcome of a fine-tuning in the background.

    Attributes:
        model_id: ID in the store; empty if the training run is paused.
        title: title of the model.
        dice: Dice of the kept weights on the validation slices, by organ; empty without validation.
        start_dice: the same before the first step; empty if the starting model knows none of the organs.
        validated_on: source of the validation slices, in words.
        seconds: time spent on the whole training.
        steps: optimizer steps.
        stopped: "budget", "no more progress", "loss not a number", "stopped", "paused".
        notes: sentences for the user.
        card: short description of the model, for users.
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
