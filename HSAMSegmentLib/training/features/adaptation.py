"""Which part of a network learns, and where the part that does not may be cut off and its results kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.models.interface import Features, SegmentationNetwork, StageLogits
from HSAMSegmentLib.models.lora import first_adapted_block
from HSAMSegmentLib.training.features.token_subset import Cells

FROZEN, LORA, FULL = "frozen", "lora", "full"
ADAPTATIONS = (FROZEN, LORA, FULL)


def set_trainable(network: SegmentationNetwork, adaptation: str) -> None:
    """Freeze what does not learn.

    "frozen": the head learns. "lora": the head and the adapters. "full": everything.

    Raises:
        RequestError: if "lora" is asked for and the encoder has no adapters.
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
    """A network cut where its frozen part ends.

    `frozen_part` gives the same for the same image as long as the training lasts, so it may be kept; `learning_part`
    goes on from there.
    """

    def __init__(self, network: SegmentationNetwork, adaptation: str) -> None:
        self.network = network
        self.blocks = first_adapted_block(network.encoder) if adaptation == LORA else None

    @torch.no_grad()
    def frozen_part(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, S, S] to the tensors that are worth keeping, batch first."""
        if self.blocks is not None:
            return (self.network.encoder.forward_prefix(images, self.blocks),)
        features = self.network.encode(images)
        return (features.embedding, *features.skips)

    def learning_part(
        self, kept: tuple[Tensor, ...], labels: Tensor | None = None, cells: Cells | None = None
    ) -> StageLogits:
        """From the result of `frozen_part` to the logits of all stages.

        Args:
            kept: what `frozen_part` gave.
            labels: [B, H, W] for heads that use them, of the cells alone if there are any.
            cells: decode these parts of the embedding only, None for all of it.
        """
        if self.blocks is None:
            features = Features(kept[0], tuple(kept[1:]))
        else:
            features = Features(self.network.encoder.forward_suffix(kept[0], self.blocks))
        if cells is None:
            return self.network.decode(features, labels)
        with cells.placed(self.network.head):
            return self.network.decode(cells.take_features(features), labels)

    def through(self, network: SegmentationNetwork) -> SplitNetwork:
        """The same cut through another network with the same frozen part."""
        other = copy.copy(self)
        other.network = network
        return other

    def shapes(self, image_size: int, device: torch.device | str = "cpu") -> Iterator[tuple[int, ...]]:
        """Shape of each tensor of `frozen_part` for one image."""
        for tensor in self.frozen_part(torch.zeros(1, 3, image_size, image_size, device=device)):
            yield tuple(tensor.shape[1:])
