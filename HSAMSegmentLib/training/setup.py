"""What a teaching works with once everything is read, and how it is cut out of the cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.training.data.batches import Draw
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.sampling import BalancedSampler
from HSAMSegmentLib.training.data.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.initialization import Start
from HSAMSegmentLib.training.loop.validation import ValidationSet
from HSAMSegmentLib.training.recipe import TeachPlan
from HSAMSegmentLib.training.request import TeachRequest


@dataclass(frozen=True)
class TeachSetup:
    """What a job works with.

    Attributes:
        labels: what is taught.
        plan: what is built and how it learns.
        start: the network to begin with.
        training: the cases to learn from.
        validation: cases given to judge by.
        draw: where views come from.
        held: slices to judge by, of the given cases or of those to learn from.
    """

    labels: LabelSet
    plan: TeachPlan
    start: Start
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    draw: Draw
    held: tuple[ValidationSet, ...]

    @property
    def steps_per_epoch(self) -> int:
        """Steps that draw as many views as there are slices."""
        return max(1, -(-len(self.draw.sampler) // self.draw.batch_size))

    def facts(self, request: TeachRequest) -> dict:
        """What must be the same for a training to be resumed."""
        start = {name: value for name, value in self.start.facts.items() if isinstance(value, (str, int))}
        return {
            "cases": [case.hashes for case in self.training],
            "validation": [case.hashes for case in self.validation],
            "labels": [label.name for label in self.labels],
            "architecture": self.plan.architecture.to_json(),
            "other_plane": self.plan.other_plane,
            "adaptation": self.plan.adaptation,
            "start": start,
            "encoder": self.start.encoder_source.sha256,
            "seed": request.seed,
            "batch_size": request.batch_size,
        }

    def features_key(self, request: TeachRequest, device_type: str) -> str:
        """A hash of everything that kept features depend on."""
        plan = self.plan
        facts = [self.facts(request), plan.augment.to_json(), repr(plan.slices), repr(plan.intensity), device_type]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def bank_of(case: Case, plan: TeachPlan) -> SliceBank:
    """The slices of a case as the network of a plan will see them."""
    size = plan.architecture.encoder.image_size
    return build_slice_bank(case, slices=plan.slices, intensity=plan.intensity, image_size=size)


def draw_of(
    banks: tuple[SliceBank, ...],
    held: Sequence[ValidationSet],
    plan: TeachPlan,
    *,
    num_classes: int,
    batch_size: int,
) -> Draw:
    """Views of all slices but those that are held out.

    Args:
        banks: the training cases.
        held: what is held out; of banks that are not among these nothing is.
        plan: how views are varied.
        num_classes: foreground classes K.
        batch_size: views per step.
    """
    excluded = [frozenset(index for item in held if item.bank is bank for index in item.slices) for bank in banks]
    return Draw(
        banks=banks,
        sampler=BalancedSampler(banks, num_classes=num_classes, excluded=excluded),
        rule=plan.augment,
        image_size=plan.architecture.encoder.image_size,
        batch_size=batch_size,
    )
