"""What a teaching works with once everything is read and built."""

from __future__ import annotations

from dataclasses import dataclass

from HSAMSegmentLib.training.batches import Draw
from HSAMSegmentLib.training.cases import Case
from HSAMSegmentLib.training.plan import TeachPlan
from HSAMSegmentLib.training.starting import Start
from HSAMSegmentLib.training.validation import ValidationSet
from HSAMSegmentLib.volumes.labels import LabelSet


@dataclass(frozen=True)
class TeachSetup:
    """Plan, network and scans of one teaching.

    Attributes:
        labels: that are taught, values 1..K.
        plan: what is built and how it learns.
        start: the network, and where its weights come from.
        training: the labelled scans.
        validation: those that were given to validate on.
        unlabeled: scans without labels.
        draw: views of the labelled scans.
        held: slices to validate on.
    """

    labels: LabelSet
    plan: TeachPlan
    start: Start
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    unlabeled: tuple[Case, ...]
    draw: Draw
    held: tuple[ValidationSet, ...]

    @property
    def steps_per_epoch(self) -> int:
        """Steps that draw as many views as there are slices."""
        return max(1, -(-len(self.draw.sampler) // self.draw.batch_size))
