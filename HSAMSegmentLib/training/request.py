"""What teaching is asked to do and what it answers: plain data. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SCHEDULES = ("constant", "cosine", "hsam", "autosam")
FEW_CASES = 5
"""Up to so many scans are taught in the way that one scan is."""
SECOND_PLANE_CASES = range(2, FEW_CASES + 1)
"""From so many scans with thin slices a second network is taught: from a single one it made nothing better."""


@dataclass(frozen=True)
class CaseFiles:
    """A scan and its labels.

    Attributes:
        image: a volume file or DICOM folder.
        labels: a label map or segmentation file.
    """

    image: Path
    labels: Path


@dataclass(frozen=True)
class TeachRequest:
    """Teach a model from labelled scans.

    Attributes:
        output: the bundle to write.
        cases: to learn from; may be empty where `teach` is given cases in memory.
        validation: to choose the best state by; empty to hold out slices of the cases.
        names: names of label values, for label maps without.
        title: of the model; empty for one made from its labels.
        modality: "CT", "MR" or "" for that of the first scan.
        head: "hsam", "autosam", "cnn", "linear" or "" for that of the starting model or the default.
        encoder: id of an encoder, or "" for that of the starting model or the default.
        start_from: id or file of a model to take over what fits; "" for the default, "scratch" for no model at all.
        adaptation: "frozen", "lora", "full" or "" for the default of the encoder.
        lora_blocks: adapters in the encoder's last k blocks; implies "lora".
        lora_rank: rank of the adapters.
        image_size: side of the network's input, or None for the default of the encoder.
        minutes: length of the whole job; 10 if neither this nor `epochs` is given.
        epochs: passes over the slices instead of minutes.
        seed: of everything that is drawn.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        batch_size: views per step.
        rate: highest learning rate, or None for the default of the adaptation.
        schedule: of the learning rate: "constant", "cosine", "hsam" for the warm-up and polynomial decay of H-SAM's
            training, "autosam" for AutoSAM's tenth after each plateau of the loss, or "" for what measured best.
        resume: go on where an interrupted run of the same output stopped.
        overwrite: whether files may be replaced.
        report: JSON file to write, or None.
        plot: PNG file to write, or None.
        save_seconds: how often the state is written that `resume` goes on from.
        cache_bytes: bound on the files that keep a frozen encoder's features.
        cache_folder: where these files go, None for the system's folder for temporary files.
    """

    output: Path
    cases: tuple[CaseFiles, ...] = ()
    validation: tuple[CaseFiles, ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    title: str = ""
    modality: str = ""
    head: str = ""
    encoder: str = ""
    start_from: str = ""
    adaptation: str = ""
    lora_blocks: int | None = None
    lora_rank: int = 4
    image_size: int | None = None
    minutes: float | None = None
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"
    batch_size: int = 4
    rate: float | None = None
    schedule: str = ""
    resume: bool = False
    overwrite: bool = False
    report: Path | None = None
    plot: Path | None = None
    save_seconds: float = 20.0
    cache_bytes: int = 4 << 30
    cache_folder: Path | None = None


@dataclass(frozen=True)
class TeachMetrics:
    """Numbers of one look at the training.

    Attributes:
        step: steps of the optimizer so far.
        epoch: passes over the slices so far.
        loss: running mean of the training loss; not a number before the first step.
        dice: label name to Dice on the validation slices; empty if there are none.
        best: whether this state is kept: the best so far, or hardly worse and later (`Looks`).
        eta_seconds: estimated remaining time, None while unknown.
    """

    step: int
    epoch: float
    loss: float
    dice: dict[str, float] = field(default_factory=dict)
    best: bool = False
    eta_seconds: float | None = None

    @property
    def mean_dice(self) -> float | None:
        """Mean over the labels, None without validation."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else None


@dataclass(frozen=True)
class TeachPreview:
    """One validation slice as the network sees it now.

    Attributes:
        case: name of the scan.
        slice_index: index of the slice in the canonical stack.
        image: uint8 [rows, cols].
        reference: uint8 labels [rows, cols].
        predicted: uint8 labels [rows, cols].
    """

    case: str
    slice_index: int
    image: np.ndarray
    reference: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class FinetuneNote:
    """Something that a user should know, told as soon as it is known.

    Attributes:
        sentence: what.
    """

    sentence: str


TeachEvents = Callable[[Any], None]


@dataclass(frozen=True)
class TeachResult:
    """What came out.

    Attributes:
        path: the bundle.
        dice: label name to Dice of the kept state on the validation slices; empty without validation.
        validated_on: "given case", "held-out slices of the same scan" or "nothing".
        steps: of the optimizer.
        epochs: passes over the slices.
        seconds: of the whole job, interrupted runs included.
        stopped: why it ended: "budget", "no more progress", "cancelled" or "loss not a number".
        notes: sentences on what was assumed, resampled, taken over or left out.
        history: every `TeachMetrics`.
        advice: those of the notes that whoever uses the model should read; the others say how it was made.
    """

    path: Path
    dice: dict[str, float]
    validated_on: str
    steps: int
    epochs: float
    seconds: float
    stopped: str
    notes: tuple[str, ...]
    history: tuple[TeachMetrics, ...]
    advice: tuple[str, ...] = ()


def ignore_events(event: Any) -> None:
    """Accept and drop an event."""
