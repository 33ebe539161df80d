"""Label-safe augmentation of slices, a whole batch at a time.

One sampling grid per slice holds crop, rotation, scale, mirror and elastic deformation together, so that the image is
interpolated once (bilinear) and its labels are looked up once (nearest neighbor: no value is ever invented). MONAI has
the same transforms for one slice at a time, and takes two to three times as long (Testing/Benchmarks/bench_augment.py).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from HSAMSegmentLib.training import ranks
from HSAMSegmentLib.training.data.cases import UNLABELED

_CHANGED_STRUCTURES_SHARE = 0.6
_LARGEST_ENHANCEMENT = 0.25


class BatchDraws:
    """Draws with the samples along the first dimension; alone exactly as torch's own functions with a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        """
        Args:
            generator: in the same state on all ranks.
        """
        self.generator = generator

    def rand(self, count: int, *shape: int) -> Tensor:
        """Uniform in [0, 1) for `count` samples of this rank."""
        return ranks.part_of(torch.rand(count * ranks.world_size(), *shape, generator=self.generator))

    def randn(self, count: int, *shape: int) -> Tensor:
        """Normal for `count` samples of this rank."""
        return ranks.part_of(torch.randn(count * ranks.world_size(), *shape, generator=self.generator))

    def whole_rand(self, count: int) -> Tensor:
        """Uniform in [0, 1) for the samples of all ranks."""
        return torch.rand(count * ranks.world_size(), generator=self.generator)

    def one(self) -> Tensor:
        """One number in [0, 1) for all samples, [1]."""
        return torch.rand(1, generator=self.generator)


@dataclass(frozen=True)
class AugmentRule:
    """Ranges of the augmentation. Every range is symmetric or (lowest, highest).

    Attributes:
        rotation_degrees: largest rotation in plane.
        any_turn_probability: how often the rotation is drawn from the full circle instead.
        scale: range of the magnification.
        shift_px: standard deviation of the shift of the view's center.
        elastic_px: standard deviation of the deformation's control points.
        elastic_cell_px: distance of the deformation's control points.
        mirror_probability: how often columns are mirrored; 0 where left and right are different labels.
        gamma: range of the exponent on intensities in [0, 1].
        contrast: range of the factor on the distance from the mean.
        brightness: largest offset.
        bias_field: standard deviation of the logarithm of a smooth gain field.
        noise: largest standard deviation of white noise.
        blur_probability: how often the view passes through a coarser grid.
        lone_slice_probability: how often neighbors are replaced by the slice itself, as at the end of a stack.
        swap_neighbors: whether the slice before and the slice after may change places.
        structure_contrast: standard deviation of the intensity offset of single structures, 0 for none.
        structure_contrast_probability: how often a view gets such offsets, each for about 60 % of its structures.
        enhancing_labels: label values that contrast medium brightens.
        unenhanced_probability: how often these are darkened together, as before or long after contrast medium.
    """

    rotation_degrees: float = 15.0
    any_turn_probability: float = 0.0
    scale: tuple[float, float] = (0.8, 1.25)
    shift_px: float = 8.0
    elastic_px: float = 3.0
    elastic_cell_px: int = 32
    mirror_probability: float = 0.0
    gamma: tuple[float, float] = (0.7, 1.5)
    contrast: tuple[float, float] = (0.75, 1.3)
    brightness: float = 0.08
    bias_field: float = 0.15
    noise: float = 0.05
    blur_probability: float = 0.15
    lone_slice_probability: float = 0.1
    swap_neighbors: bool = False
    structure_contrast: float = 0.0
    structure_contrast_probability: float = 0.35
    enhancing_labels: tuple[int, ...] = ()
    unenhanced_probability: float = 0.15

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest."""
        return asdict(self)


def between(first: AugmentRule, second: AugmentRule, share: float) -> AugmentRule:
    """Interpolate ranges and probabilities between two rules; everything else is from the second rule.

    Args:
        first: the rule at share 0.
        second: the rule at share 1.
        share: 0 to 1.
    """

    def mix(one: float, other: float) -> float:
        return one + (other - one) * share

    mixed: dict[str, Any] = {}
    for name, value in asdict(second).items():
        if name in ("elastic_cell_px", "enhancing_labels"):
            continue
        start = getattr(first, name)
        if isinstance(value, tuple):
            mixed[name] = tuple(map(mix, start, value))
        elif not isinstance(value, bool):
            mixed[name] = mix(start, value)
    return replace(second, **mixed)


def augment(
    images: Tensor,
    labels: Tensor,
    rule: AugmentRule,
    *,
    size: tuple[int, int],
    generator: torch.Generator,
    centers_px: Tensor | None = None,
    noise_generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one view of every slice.

    Args:
        images: [B, 3, H, W] in [0, 1], on the device that does the work.
        labels: [B, H, W] integer, on the same device.
        rule: the ranges.
        size: rows and columns of the views.
        generator: source of randomness on the CPU, so that the draws do not depend on the device. Where several ranks
            train together it is in the same state on all, and the slices are the part of this rank.
        centers_px: [B, 2] center (column, row) of every view in the slice; None for the middle.
        noise_generator: source of the white noise on the device of the images, which is faster there; None to use
            `generator`.

    Returns:
        Views [B, 3, *size] in [0, 1] and their labels [B, *size], int64. What lies outside of the slice is 0.
    """
    draws = BatchDraws(generator)
    grid = _sampling_grid(images, rule, size, draws, centers_px)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    looked_up = F.grid_sample(
        labels[:, None].to(images.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    view_labels = looked_up[:, 0].long()
    views = _change_neighbors(views, rule, draws)
    views = _change_intensities(views, rule, draws, noise_generator)
    return _change_structures(views, view_labels, rule, draws), view_labels


def _uniform(count: int, low: float, high: float, draws: BatchDraws) -> Tensor:
    return low + (high - low) * draws.rand(count)


def _chosen(count: int, probability: float, draws: BatchDraws) -> Tensor:
    return draws.rand(count) < probability


def _linear_maps(count: int, rule: AugmentRule, draws: BatchDraws) -> Tensor:
    """Matrices [B, 2, 2] from view to slice: rotation, magnification, mirror."""
    angle = _uniform(count, -rule.rotation_degrees, rule.rotation_degrees, draws)
    anywhere = _uniform(count, -180.0, 180.0, draws)
    angle = torch.where(_chosen(count, rule.any_turn_probability, draws), anywhere, angle) * math.pi / 180.0
    low, high = (math.log(bound) for bound in rule.scale)
    shrink = torch.exp(-_uniform(count, low, high, draws))
    side = torch.where(_chosen(count, rule.mirror_probability, draws), -1.0, 1.0)
    cosine, sine = angle.cos() * shrink, angle.sin() * shrink
    return torch.stack([cosine * side, -sine, sine * side, cosine], dim=1).reshape(count, 2, 2)


def _sampling_grid(
    images: Tensor,
    rule: AugmentRule,
    size: tuple[int, int],
    draws: BatchDraws,
    centers_px: Tensor | None,
) -> Tensor:
    """Grid [B, rows, columns, 2] for `grid_sample`, (x, y) in its normalized coordinates."""
    count, device = images.shape[0], images.device
    extent = torch.tensor([images.shape[-1], images.shape[-2]], dtype=torch.float32)
    middle = ((extent - 1) / 2).expand(count, 2) if centers_px is None else centers_px
    middle = middle + rule.shift_px * draws.randn(count, 2)
    rows, cols = (torch.arange(length, device=device) - (length - 1) / 2 for length in size)
    plain = torch.stack(torch.meshgrid(cols, rows, indexing="xy"), dim=-1)
    bent = plain + _displacement(count, rule, size, draws, device)
    turned = torch.einsum("bij,brcj->brci", _linear_maps(count, rule, draws).to(device), bent)
    return (2 * (turned + middle[:, None, None, :].to(device)) + 1) / extent.to(device) - 1


def _smooth_field(shape: tuple[int, int, int, int], cell: int, draws: BatchDraws, device: torch.device) -> Tensor:
    """Noise of unit size at control points `cell` pixels apart, smooth in between, of a shape [B, C, rows, columns]."""
    count, channels, *size = shape
    points = [max(2, math.ceil(length / cell) + 1) for length in size]
    quarter = [math.ceil(length / 4) for length in size]
    coarse = draws.randn(count, channels, *points).to(device)
    smooth = F.interpolate(coarse, size=quarter, mode="bicubic", align_corners=True)
    return F.interpolate(smooth, size=size, mode="bilinear", align_corners=True)


def _displacement(
    count: int, rule: AugmentRule, size: tuple[int, int], draws: BatchDraws, device: torch.device
) -> Tensor:
    if rule.elastic_px <= 0:
        return torch.zeros(count, *size, 2, device=device)
    amplitude = rule.elastic_px * draws.rand(count, 1, 1, 1).to(device)
    field = _smooth_field((count, 2, *size), rule.elastic_cell_px, draws, device)
    return (amplitude * field).permute(0, 2, 3, 1)


def _change_neighbors(views: Tensor, rule: AugmentRule, draws: BatchDraws) -> Tensor:
    count = len(views)
    if rule.swap_neighbors:
        swap = _chosen(count, 0.5, draws).to(views.device)[:, None, None, None]
        views = torch.where(swap, views.flip(1), views)
    alone = _chosen(count, rule.lone_slice_probability, draws).to(views.device)[:, None, None, None]
    return torch.where(alone, views[:, 1:2].expand_as(views), views)


def _change_structures(views: Tensor, labels: Tensor, rule: AugmentRule, draws: BatchDraws) -> Tensor:
    """Change the intensity of single structures, as other phases of contrast medium do."""
    if rule.structure_contrast <= 0:
        return views
    count = len(views)
    offsets = rule.structure_contrast * draws.randn(count, UNLABELED + 1)
    offsets *= draws.rand(count, UNLABELED + 1) < _CHANGED_STRUCTURES_SHARE
    offsets *= _chosen(count, rule.structure_contrast_probability, draws)[:, None]
    is_unenhanced = _chosen(count, rule.unenhanced_probability, draws)[:, None]
    darker = is_unenhanced * _uniform(count, 0.0, _LARGEST_ENHANCEMENT, draws)[:, None]
    offsets[:, list(rule.enhancing_labels)] -= darker
    offsets[:, [0, UNLABELED]] = 0.0
    field = offsets.to(views.device).gather(1, labels.flatten(1)).view_as(labels)[:, None]
    return (views + F.avg_pool2d(field, 3, stride=1, padding=1)).clamp(0, 1)


def _change_intensities(
    views: Tensor, rule: AugmentRule, draws: BatchDraws, noise_generator: torch.Generator | None
) -> Tensor:
    """Gamma, contrast, brightness, gain field, blur and noise, the same for all channels of a view."""
    count, device = len(views), views.device

    def draw(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, draws).to(device)[:, None, None, None]

    low, high = (math.log(bound) for bound in rule.gamma)
    views = views.clamp(0, 1).pow(draw(low, high).exp())
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = (views - mean) * draw(*rule.contrast) + mean + draw(-rule.brightness, rule.brightness)
    if rule.bias_field > 0:
        size = (views.shape[-2], views.shape[-1])
        gain = _smooth_field((count, 1, *size), max(size) // 3 + 1, draws, device)
        views = views * torch.exp(rule.bias_field * gain)
    views = _blur(views, rule, draws)
    if noise_generator is None:
        noise = draws.randn(*views.shape).to(device)
    else:
        noise = torch.randn(views.shape, generator=noise_generator, device=noise_generator.device).to(device)
    return (views + draw(0.0, rule.noise) * noise).clamp(0, 1)


def _blur(views: Tensor, rule: AugmentRule, draws: BatchDraws) -> Tensor:
    of_all_ranks = draws.whole_rand(len(views)) < rule.blur_probability
    if not of_all_ranks.any():
        return views
    chosen = ranks.part_of(of_all_ranks)
    size = (views.shape[-2], views.shape[-1])
    factor = float(0.5 + (0.9 - 0.5) * draws.one())
    coarse = F.interpolate(views, scale_factor=factor, mode="bilinear", align_corners=False)
    blurred = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return torch.where(chosen.to(views.device)[:, None, None, None], blurred, views)
