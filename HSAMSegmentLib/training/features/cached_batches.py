"""Batches from the feature cache: for frozen encoders and encoders with a frozen first part."""

from __future__ import annotations

import torch
from torch import Tensor

from HSAMSegmentLib.models.heads.cnn import CnnHead
from HSAMSegmentLib.models.interface import StageLogits
from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.batches import TrainingSet
from HSAMSegmentLib.training.features.adaptation import SplitNetwork
from HSAMSegmentLib.training.features.cached_features import CachedFeatures
from HSAMSegmentLib.training.features.token_subset import (
    RECTANGLE_TOKENS,
    TokenSubset,
    rectangular_subset,
    scattered_shape,
    scattered_subset,
)

STRIDE = 16


class CachedFeatureBatches:
    """Draws views from the feature cache and runs the trained part of the network."""

    def __init__(
        self, split: SplitNetwork, training_set: TrainingSet, device: torch.device, features: CachedFeatures
    ) -> None:
        """
        Args:
            split: the network in evaluation mode, cut where its frozen part ends.
            training_set: the slices.
            device: where the network is.
            features: the cached results of the frozen part.
        """
        self.split, self.training_set, self.device, self.features = split, training_set, device, features
        self.sampler = training_set.sampler.only(features.cached_items)

    def forward(self, generator: torch.Generator) -> tuple[StageLogits, Tensor]:
        """See `Batches`."""
        drawn = self.sampler.draw(self.training_set.global_batch_size, generator)
        entries = ranks.part_of(self.features.entries(drawn, generator))
        cached, labels = self.features.cache.read(entries, self.device)
        tokens = self._token_subset(labels, ranks.own_generator(generator))
        if tokens is not None:
            labels = tokens.take_labels(labels)
        return self.split.trained_part(cached, labels, tokens), labels

    def close(self) -> None:
        """Remove the files."""
        self.features.close()

    def _token_subset(self, labels: Tensor, generator: torch.Generator) -> TokenSubset | None:
        """The part of the embeddings that a step decodes; None for all of it."""
        grid = (self.training_set.image_size // STRIDE,) * 2
        if isinstance(self.split.network.head, CnnHead):
            return rectangular_subset(labels, grid, generator) if grid > RECTANGLE_TOKENS else None
        if scattered_shape(grid) == grid:
            return None
        return scattered_subset(len(labels), grid, generator, labels.device)
