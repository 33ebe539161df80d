"""Requests for fine-tuning in the worker: cases, labels, where files live; and for inspecting a labeled file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.workflows.inputs import VolumeInput


@dataclass(frozen=True)
class LayerInput:
    """One label array of a case, on a grid of its own.

    Attributes:
        array_file: `.npy` file of the label values (k, j, i).
        geometry: its grid, in the coordinate system of the scan.
    """

    array_file: str
    geometry: Geometry


@dataclass(frozen=True)
class OrganInput:
    """Where an organ that is learned is found in a case.

    Attributes:
        organ: name of the label that is learned.
        source: name that the case has for it (two names may lead to one organ).
        layer: number of the layer that holds it; of no meaning for label files.
        value: its value there; of no meaning for label files.
    """

    organ: str
    source: str
    layer: int = 0
    value: int = 0


@dataclass(frozen=True)
class FinetuneCase:
    """A scan with its labels: either a label file, or layers.

    Attributes:
        scan: the scan.
        organs: what is learned of it; everything else is background.
        label_file: label map or segmentation file; empty if there are layers.
        layers: label arrays, the smaller organ winning where some overlap.
    """

    scan: VolumeInput
    organs: tuple[OrganInput, ...]
    label_file: str = ""
    layers: tuple[LayerInput, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.label_file) == bool(self.layers):
            raise RequestError(f"The case '{self.scan.name}' needs its labels either as a file or as arrays.")


@dataclass(frozen=True)
class FinetuneJobRequest:
    """Fine-tune a model and put it into the store.

    Attributes:
        folder: of the training run (see `training_run.TrainingRun`): copies of arrays, training state, history.
        cases: what is learned from.
        labels: what is learned: names, colors and codes, values 1 to K.
        model_id: id that the model gets, if it is still free.
        title: of the model.
        start_from: id of a model, "" for the default, "scratch" for none.
        encoder: id of a SAM encoder of the store to learn on, "" for that of the starting model.
        head: "hsam", "autosam", "cnn", "linear" or "" for that of the starting model.
        minutes: length of the whole training, pauses not counted.
        device: "auto", "cpu", "cuda", ...
        store_folder: the store's folder; empty for the user's own.
        seed: of everything that is drawn.
        resume: go on where the training run stands.
        finish: do not learn any more: make a model of the best that the training run has.
    """

    kind: ClassVar[str] = "finetune"

    folder: str
    cases: tuple[FinetuneCase, ...]
    labels: LabelSet
    model_id: str
    title: str = ""
    start_from: str = ""
    encoder: str = ""
    head: str = ""
    minutes: float = 5.0
    device: str = "auto"
    store_folder: str = ""
    seed: int = 0
    resume: bool = False
    finish: bool = False


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
    """What came out of a `FinetuneJobRequest`.

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
