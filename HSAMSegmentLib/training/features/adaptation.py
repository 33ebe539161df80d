"""Freeze and split a network: which part is trained, and where the frozen part ends, so its output can be cached."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.models.interface import Features, SegmentationNetwork, StageLogits
from HSAMSegmentLib.models.lora import first_adapted_block
from HSAMSegmentLib.training.features.token_subset import TokenSubset

FROZEN, LORA, FULL = "frozen", "lora", "full"
ADAPTATIONS = (FROZEN, LORA, FULL)


def set_trainable(network: SegmentationNetwork, adaptation: str) -> None:
    """Freeze what is not trained.

    "frozen": the head is trained. "lora": the head and the adapters. "full": everything.

    Raises:
        RequestError: if "lora" is requested and the encoder has no adapters.
    """
    if adaptation == FULL:
        network.requires_grad_(True)
        return
    adapters = {name for name, _ in network.encoder.named_parameters() if ".lora_" in name}
    if adaptation == LORA and not adapters:
        raise RequestError("Adapters (LoRA) need one of SAM's encoders; choose 'frozen' or 'full' for this one.")
    for name, parameter in network.encoder.named_parameters():
        parameter.requires_grad_(adaptation == LORA and name in adapters)
    network.head.requires_grad_(True)


class SplitNetwork:
    """A network split where its frozen part ends.

    During training, `frozen_part` gives the same result for the same image, so its output can be cached; `trained_part`
    continues from there.
    """

    def __init__(self, network: SegmentationNetwork, adaptation: str) -> None:
        self.network: Any = network
        self.blocks = first_adapted_block(network.encoder) if adaptation == LORA else None

    @torch.no_grad()
    def frozen_part(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, S, S] to the tensors to cache, batch first."""
        if self.blocks is not None:
            return (self.network.encoder.forward_prefix(images, self.blocks),)
        features = self.network.encode(images)
        return (features.embedding, *features.skips)

    def trained_part(
        self, cached: tuple[Tensor, ...], labels: Tensor | None = None, tokens: TokenSubset | None = None
    ) -> StageLogits:
        """Run the trained part, from the output of `frozen_part` to the logits of all stages.

        Args:
            cached: output of `frozen_part`.
            labels: [B, H, W] for heads that use them; with a subset, only those of its tokens.
            tokens: the part of the embedding to decode; None for all of it.
        """
        if self.blocks is None:
            features = Features(cached[0], tuple(cached[1:]))
        else:
            features = Features(self.network.encoder.forward_suffix(cached[0], self.blocks))
        if tokens is None:
            return cast(StageLogits, self.network.decode(features, labels))
        with tokens.placed(self.network.head):
            return cast(StageLogits, self.network.decode(tokens.take_features(features), labels))

    def through(self, network: SegmentationNetwork) -> SplitNetwork:
        """The same split of another network with the same frozen part."""
        other = copy.copy(self)
        other.network = network
        return other

    def shapes(self, image_size: int, device: torch.device | str = "cpu") -> Iterator[tuple[int, ...]]:
        """Shape of each tensor of `frozen_part` for one image."""
        for tensor in self.frozen_part(torch.zeros(1, 3, image_size, image_size, device=device)):
            yield tuple(tensor.shape[1:])
