"""The interface of every segmentation network of this package, whatever its encoder and head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Features(NamedTuple):
    """What an encoder passes to a head.

    Attributes:
        embedding: [B, 256 or head width, h, h] with h = S / 16.
        skips: finer feature maps, coarsest first ([B, C, 2h, 2h], ...); empty for SAM's encoders.
    """

    embedding: Tensor
    skips: tuple[Tensor, ...] = ()


class StageLogits(NamedTuple):
    """Logits of every decoding stage, first to last; one entry for heads with one stage.

    Attributes:
        stages: tensors [B, K + 1, s, s], each at its own resolution s (H-SAM: 4h and S).
    """

    stages: tuple[Tensor, ...]


class SegmentationNetwork(nn.Module):
    """An encoder and a head: images in, logits of every stage out.

    `encode` and `decode` are separate since fine-tuning with a frozen encoder computes features once and decodes them
    many times. The network itself handles slices of one plane; `other_planes` holds a network of the same kind for each
    further plane of multi-planar inference.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        head: nn.Module,
        image_size: int,
        num_classes: int,
        other_planes: Mapping[str, SegmentationNetwork] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.other_planes = nn.ModuleDict(other_planes or {})
        self.image_size = image_size
        self.num_classes = num_classes

    def encode(self, images: Tensor) -> Features:
        """Compute features of images [B, 3, S, S] whose values lie in [0, 1]."""
        features = self.encoder(images)
        return features if isinstance(features, Features) else Features(features)

    def decode(self, features: Features, labels: Tensor | None = None) -> StageLogits:
        """Compute the logits of all stages from features.

        Args:
            features: from `encode`.
            labels: [B, H, W] of any size, for heads that use them in training (H-SAM's "paper" form balances its
                noise with them); values that are not a class mean unlabeled.
        """
        found: StageLogits = self.head(features, labels)
        return found

    def forward(self, images: Tensor, labels: Tensor | None = None) -> StageLogits:
        """Images [B, 3, S, S] in [0, 1] to the logits of all stages; `labels` as in `decode`."""
        return self.decode(self.encode(images), labels)


def merged_logits(logits: StageLogits, size: tuple[int, int]) -> Tensor:
    """Mean of all stages' logits after bilinear resizing to `size` (rows, columns): [B, K + 1, rows, columns].

    With two stages this is H-SAM's "stage 3" result (Cheng et al., CVPR 2024).
    """
    resized = [
        stage
        if stage.shape[-2:] == torch.Size(size)
        else nn.functional.interpolate(stage, size=size, mode="bilinear", align_corners=False)
        for stage in logits.stages
    ]
    return torch.stack(resized).mean(dim=0)
