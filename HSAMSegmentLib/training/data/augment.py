"""Label-safe augmentation of slices, a whole batch at a time.

One sampling grid per slice combines crop, rotation, scale, mirroring and elastic deformation, so that the image is
interpolated once (bilinear) and its labels are sampled once (nearest neighbor: no new values). MONAI has the same
transforms for one slice at a time and takes two to three times as long (Testing/Benchmarks/bench_augment.py).
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
    """Random draws with samples along the first dimension; on a single rank identical to torch's own functions."""

    def __init__(self, generator: torch.Generator) -> None:
        """
        Args:
            generator: in the same state on all ranks.
        """
        self.generator = generator

    def rand(self, count: int, *shape: int) -> Tensor:
        """Uniform in [0, 1), for `count` samples of this rank."""
        return ranks.part_of(torch.rand(count * ranks.world_size(), *shape, generator=self.generator))

    def randn(self, count: int, *shape: int) -> Tensor:
        """Standard normal, for `count` samples of this rank."""
        return ranks.part_of(torch.randn(count * ranks.world_size(), *shape, generator=self.generator))

    def whole_rand(self, count: int) -> Tensor:
        """Uniform in [0, 1), for the samples of all ranks."""
        return torch.rand(count * ranks.world_size(), generator=self.generator)

    def one(self) -> Tensor:
        """One number in [0, 1) for all samples, [1]."""
        return torch.rand(1, generator=self.generator)


@dataclass(frozen=True)
class AugmentRule:
    """Augmentation ranges. Every range is symmetric or (lowest, highest).

    Attributes:
        rotation_degrees: largest in-plane rotation.
        any_turn_probability: probability of drawing the rotation from the full circle instead.
        scale: range of the magnification.
        shift_px: standard deviation of the shift of the view's center.
        elastic_px: standard deviation of the control points of the elastic deformation.
        elastic_cell_px: spacing of the control points.
        mirror_probability: probability of mirroring columns; 0 if left and right are different labels.
        gamma: range of the exponent on intensities in [0, 1].
        contrast: range of the factor on the distance from the mean.
        brightness: largest offset.
        bias_field: standard deviation of the logarithm of a smooth bias field.
        noise: largest standard deviation of white noise.
        blur_probability: probability of resampling the view through a coarser grid.
        lone_slice_probability: probability of replacing the neighbors by the slice itself, as at the end of a stack.
        swap_neighbors: whether the previous and the next slice may be swapped.
        structure_contrast: standard deviation of the intensity offset of single structures, 0 for none.
        structure_contrast_probability: probability of such offsets in a view, each for about 60 % of its structures.
        enhancing_labels: label values that contrast medium brightens.
        unenhanced_probability: probability of darkening these together, as before or long after contrast medium.
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
    """Interpolate ranges and probabilities between two rules; all else comes from the second rule.

    Args:
        first: rule at share 0.
        second: rule at share 1.
        share: position between the two, 0 to 1.
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
        images: [B, 3, H, W] in [0, 1], on the device to compute on.
        labels: [B, H, W] integer, on the same device.
        rule: augmentation ranges.
        size: rows and columns of the views.
        generator: random generator on the CPU, so that draws do not depend on the device. With several ranks it is in
            the same state on all of them, and the slices are those of this rank.
        centers_px: [B, 2] center (column, row) of every view in the slice; None for the middle.
        noise_generator: generator of the white noise on the device of the images, which is faster there; None to use
            `generator`.

    Returns:
        Views [B, 3, *size] in [0, 1] and their labels [B, *size], int64; 0 outside the slice.
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
    """Smooth noise [B, C, rows, columns] of unit size, from control points `cell` pixels apart."""
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
    """Change the intensity of single structures, as other contrast phases do."""
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
    """Gamma, contrast, brightness, bias field, blur and noise, the same for all channels of a view."""
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
