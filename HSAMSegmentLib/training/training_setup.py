"""The data and the initialized network of a training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from HSAMSegmentLib.labels.label_set import LabelSet
from HSAMSegmentLib.training.data.batches import TrainingSet
from HSAMSegmentLib.training.data.cases import Case
from HSAMSegmentLib.training.data.sampling import BalancedSampler, ValidationSet
from HSAMSegmentLib.training.data.slice_bank import SliceBank, build_slice_bank
from HSAMSegmentLib.training.initialization import InitialNetwork
from HSAMSegmentLib.training.recipe import Recipe
from HSAMSegmentLib.training.request import FinetuneRequest


@dataclass(frozen=True)
class TrainingSetup:
    """What a training starts from.

    Attributes:
        labels: labels of the model.
        recipe: the network to build and how to train it.
        initial: the initialized network.
        training: training cases.
        validation: validation cases of the request; may be empty.
        training_set: slices to train on.
        validation_sets: slices to validate on, from the validation cases or held out of the training cases.
    """

    labels: LabelSet
    recipe: Recipe
    initial: InitialNetwork
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    training_set: TrainingSet
    validation_sets: tuple[ValidationSet, ...]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all ranks together draw as many slices as the training set has."""
        return max(1, -(-len(self.training_set.sampler) // self.training_set.global_batch_size))

    def facts(self, request: FinetuneRequest) -> dict[str, Any]:
        """What must be unchanged for a training to be resumed."""
        start = {name: value for name, value in self.initial.facts.items() if isinstance(value, (str, int))}
        return {
            "cases": [case.hashes for case in self.training],
            "validation": [case.hashes for case in self.validation],
            "labels": [label.name for label in self.labels],
            "architecture": self.recipe.architecture.to_json(),
            "other_plane": self.recipe.second_plane,
            "adaptation": self.recipe.adaptation,
            "start": start,
            "encoder": self.initial.encoder_source.sha256,
            "seed": request.seed,
            "batch_size": request.batch_size,
        }

    def features_key(self, request: FinetuneRequest, device_type: str) -> str:
        """Hash of everything that cached features depend on."""
        recipe = self.recipe
        facts = [
            self.facts(request),
            recipe.augment.to_json(),
            repr(recipe.slices),
            repr(recipe.intensity),
            device_type,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def slice_bank_of(case: Case, recipe: Recipe) -> SliceBank:
    """The slices of a case, preprocessed for the network of a recipe."""
    size = recipe.architecture.encoder.image_size
    return build_slice_bank(case, slices=recipe.slices, intensity=recipe.intensity, image_size=size)


def training_set_of(
    banks: tuple[SliceBank, ...],
    validation_sets: Sequence[ValidationSet],
    recipe: Recipe,
    *,
    num_classes: int,
    batch_size: int,
) -> TrainingSet:
    """All labeled slices that are not held out for validation.

    Args:
        banks: the training cases.
        validation_sets: the slices to leave out; sets of other banks have no effect.
        recipe: augmentation and image size.
        num_classes: foreground classes K.
        batch_size: slices per step.
    """
    excluded = [
        frozenset(index for item in validation_sets if item.bank is bank for index in item.slices) for bank in banks
    ]
    return TrainingSet(
        banks=banks,
        sampler=BalancedSampler(banks, num_classes=num_classes, excluded=excluded),
        rule=recipe.augment,
        image_size=recipe.architecture.encoder.image_size,
        batch_size=batch_size,
    )
