"""Random contrast from label maps, so that a network learns to ignore it and works on any sequence.

Domain randomization as in SynthSeg (Billot et al., Medical Image Analysis 86 (2023) 102789), on slices: each labeled
structure and each intensity cluster of the rest gets a random mean, a random share of its own texture, and noise. Some
views keep the real image under a random tone curve, and some are left unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans
from torch import Tensor
from torch.nn import functional as F

AIR = 0
"""The tissue of the darkest cluster: air and padding."""
_SAMPLES = 40_000
_CURVE_POINTS = 6
_NARROWEST, _WIDEST = 0.05, 0.5
_SOFT_SHARE = 0.6


@dataclass(frozen=True)
class ContrastRule:
    """Probabilities and ranges of random contrast.

    Attributes:
        synthetic_probability: probability of synthesizing a view from its tissues.
        curve_probability: probability of applying a random tone curve.
        inverted_share: fraction of falling tone curves.
        band_probability: probability of squeezing real intensities into a part of the range, as a scan with metal or
            lungs does to soft tissue.
        dark_air_probability: probability that air stays dark in changed views.
        texture: range of the factor on a voxel's deviation from the mean of its tissue; below 0 it is inverted.
        noise: largest standard deviation of the noise of a tissue.
        clusters: number of intensity clusters outside the labeled structures.
        narrow_probability: probability that the means of a synthetic view lie in a narrow band, as soft tissue in CT.
        ordered_probability: probability that the unlabeled tissues of a synthetic view keep their order of brightness.
        patches: largest standard deviation of a smooth field on the unlabeled tissues, so that unlabeled organs differ
            from each other.
        smooth_probability: probability that the unlabeled tissues of a synthetic view blend without steps.
        is_stretched: whether synthetic views are scaled to the range of intensities, as scans are.
        lung_probability: how often structures of a view become as dark as air, and lose their label.
        lung_labels: label values that do; those with lungs above them, which training scans do not reach.
        darkest_structure: lowest intensity of labeled structures in changed views; only air may be as dark as 0.
    """

    synthetic_probability: float = 0.4
    curve_probability: float = 0.25
    inverted_share: float = 0.5
    band_probability: float = 0.15
    dark_air_probability: float = 0.85
    texture: tuple[float, float] = (-1.5, 1.5)
    noise: float = 0.06
    clusters: int = 9
    narrow_probability: float = 0.0
    ordered_probability: float = 0.0
    patches: float = 0.0
    smooth_probability: float = 0.0
    is_stretched: bool = False
    lung_probability: float = 0.0
    lung_labels: tuple[int, ...] = ()
    darkest_structure: float = 0.0


def tissue_maps(images: Tensor, labels: Tensor, *, clusters: int, seed: int = 0) -> Tensor:
    """Number the tissues of a scan: intensity clusters of the unlabeled rest, then the labeled structures.

    Args:
        images: [n, S, S] in [0, 1].
        labels: [n, S, S], 0 for the rest.
        clusters: number of clusters of the rest; 0 is the darkest one.
        seed: seed of the k-means initialization.

    Returns:
        uint8 [n, S, S]: 0 to `clusters` - 1, then `clusters` + label - 1.
    """
    smooth = F.avg_pool2d(images[:, None].float(), 3, stride=1, padding=1)[:, 0]
    rest = smooth[(labels == 0) & (smooth > 0)].numpy()
    generator = np.random.default_rng(seed)
    sample = generator.choice(rest, size=min(_SAMPLES, len(rest)), replace=False).astype(np.float64)
    means, _ = kmeans(sample, np.quantile(sample, np.linspace(0.02, 0.98, clusters)))
    means.sort()
    edges = torch.from_numpy(((means[1:] + means[:-1]) / 2).astype(np.float32))
    found = torch.bucketize(smooth, edges)
    return torch.where(labels > 0, labels.long() + clusters - 1, found).to(torch.uint8)


def tissue_means(images: Tensor, tissues: Tensor, count: int) -> Tensor:
    """Mean intensity of each tissue of a scan, [count]; 0 for missing tissues."""
    flat = tissues.flatten().long()
    sums = torch.zeros(count).index_add_(0, flat, images.flatten().float())
    sizes = torch.zeros(count).index_add_(0, flat, torch.ones(len(flat)))
    return sums / sizes.clamp(min=1)


def randomize_contrast(
    images: Tensor, tissues: Tensor, means: Tensor, rule: ContrastRule, generator: torch.Generator
) -> Tensor:
    """Change the contrast of network inputs.

    Args:
        images: [B, 3, H, W] in [0, 1].
        tissues: uint8 [B, 3, H, W], from `tissue_maps`.
        means: [B, T] mean intensity of each tissue in the scan of the view.
        rule: probabilities and ranges.
        generator: random generator on the CPU.

    Returns:
        Inputs [B, 3, H, W] in [0, 1]; those drawn to stay real are unchanged.
    """
    kind = torch.rand(len(images), generator=generator)
    out = images.clone()
    for index in range(len(images)):
        view, tissue = images[index], tissues[index].long()
        if kind[index] < rule.synthetic_probability:
            changed = _synthetic(view, tissue, means[index].to(view.device), rule, generator)
        elif kind[index] < rule.synthetic_probability + rule.curve_probability:
            changed = _through_curve(view, rule, generator)
        elif kind[index] < rule.synthetic_probability + rule.curve_probability + rule.band_probability:
            out[index] = _squeezed(view, generator)
            continue
        else:
            continue
        if _random(generator) < rule.dark_air_probability:
            changed = torch.where(tissue == AIR, changed * 0.1 * _random(generator), changed)
        if rule.darkest_structure > 0:
            lifted = rule.darkest_structure + (1 - rule.darkest_structure) * changed.clamp(0, 1)
            changed = torch.where(tissue >= rule.clusters, lifted, changed)
        out[index] = changed.clamp(0, 1)
    return out


def hollow_structures(
    images: Tensor, labels: Tensor, tissues: Tensor, rule: ContrastRule, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Make structures of some views as dark as air and unlabel them: what looks like a lung is no organ.

    Scans of the abdomen alone do not show lungs, which have the place and the outline of the liver and the spleen a few
    slices higher. A network that has learned to ignore intensity takes them for these.

    Args:
        images: [B, 3, H, W] in [0, 1].
        labels: [B, H, W], of the middle slices.
        tissues: uint8 [B, 3, H, W], from `tissue_maps`.
        rule: how often, and which structures.
        generator: source of randomness on the CPU.

    Returns:
        Images and labels of the same shapes.
    """
    images, labels = images.clone(), labels.clone()
    for index in range(len(images)):
        if _random(generator) >= rule.lung_probability:
            continue
        chosen = [value for value in rule.lung_labels if _random(generator) < 0.5] or list(rule.lung_labels)
        air, texture = 0.06 * _random(generator), 0.15 * _random(generator)
        for value in chosen:
            inside = tissues[index] == rule.clusters + value - 1
            images[index] = torch.where(inside, air + texture * images[index], images[index])
            labels[index] = torch.where(labels[index] == value, torch.zeros_like(labels[index]), labels[index])
    return images, labels


def _random(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))


def _synthetic(view: Tensor, tissue: Tensor, means: Tensor, rule: ContrastRule, generator: torch.Generator) -> Tensor:
    """Synthesize every tissue: mean, share of its own texture, partly smooth noise."""
    count, device = len(means), view.device
    low, high = rule.texture
    table = torch.stack(
        [
            torch.rand(count, generator=generator),
            low + (high - low) * torch.rand(count, generator=generator),
            rule.noise * torch.rand(count, generator=generator),
        ]
    )
    table[0] = _palette(table[0], rule, generator)
    new_means, factors, noise = table.to(device)
    coarse = torch.randn(1, 3, view.shape[-2] // 3, view.shape[-1] // 3, generator=generator).to(device)
    grain = F.interpolate(coarse, size=view.shape[-2:], mode="bilinear", align_corners=False)[0]
    drawn = (new_means - factors * means)[tissue] + factors[tissue] * view + noise[tissue] * grain
    if rule.smooth_probability > 0 and _random(generator) < rule.smooth_probability:
        between = _between_tissues(view, means[: rule.clusters], new_means[: rule.clusters])
        drawn = torch.where(tissue < rule.clusters, between + noise[tissue] * grain, drawn)
    if rule.patches > 0:
        drawn = drawn + _patches(tissue, rule, generator)
    if _random(generator) < 0.5:
        drawn = F.avg_pool2d(drawn, 3, stride=1, padding=1)
    output: Tensor = _stretched(drawn, generator) if rule.is_stretched else drawn
    return output


def _palette(means: Tensor, rule: ContrastRule, generator: torch.Generator) -> Tensor:
    """Random means [T], sometimes in a narrow band, sometimes with the unlabeled tissues in order."""
    unlabeled = rule.clusters
    if rule.narrow_probability > 0 and _random(generator) < rule.narrow_probability:
        width = _NARROWEST * (_WIDEST / _NARROWEST) ** _random(generator)
        low = (1 - width) * _random(generator)
        soft = low + width * means
        # Fat, air and bone keep their drawn means, since they differ from soft tissue in CT, too.
        is_soft = torch.rand(len(means), generator=generator) < _SOFT_SHARE
        is_soft[unlabeled:] = True
        means = torch.where(is_soft, soft, means)
    if rule.ordered_probability > 0 and _random(generator) < rule.ordered_probability:
        means = torch.cat([means[:unlabeled].sort().values, means[unlabeled:]])
    return means


def _between_tissues(view: Tensor, means: Tensor, new_means: Tensor) -> Tensor:
    """Intensities interpolated between the new means of the unlabeled tissues, without steps between tissues."""
    means, order = means.contiguous().sort()
    upper = torch.searchsorted(means, view.contiguous()).clamp(1, len(means) - 1)
    low, high = means[upper - 1], means[upper]
    share = ((view - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
    values = new_means[order]
    return torch.lerp(values[upper - 1], values[upper], share)


def _stretched(view: Tensor, generator: torch.Generator) -> Tensor:
    """Stretch the view over most of the range, as a scan's percentiles do."""
    sample = view.flatten()[::7]
    low, high = torch.quantile(sample, torch.tensor([0.01, 0.99], device=view.device)).tolist()
    scaled: Tensor = (view - low) / max(high - low, 0.05) * (0.6 + 0.4 * _random(generator))
    return scaled


def _patches(tissue: Tensor, rule: ContrastRule, generator: torch.Generator) -> Tensor:
    """A smooth field on the unlabeled tissues except air, the same on all slices of a view: [3, H, W]."""
    points = 3 + int(8 * _random(generator))
    strength = rule.patches * _random(generator)
    coarse = torch.randn(1, 1, points, points, generator=generator).to(tissue.device)
    field = F.interpolate(coarse, size=tissue.shape[-2:], mode="bicubic", align_corners=True)[0]
    patched: Tensor = strength * field * ((tissue > AIR) & (tissue < rule.clusters))
    return patched


def _through_curve(view: Tensor, rule: ContrastRule, generator: torch.Generator) -> Tensor:
    """Apply a monotone, piecewise linear tone curve, rising or falling."""
    steps = torch.rand(_CURVE_POINTS - 1, generator=generator).square() + 0.02
    points = torch.cat([torch.zeros(1), steps.cumsum(0)]) / steps.sum()
    if _random(generator) < rule.inverted_share:
        points = 1 - points
    position = view.clamp(0, 1) * (_CURVE_POINTS - 1)
    lower = position.floor().clamp(max=_CURVE_POINTS - 2).long()
    points = points.to(view.device)
    return torch.lerp(points[lower], points[lower + 1], position - lower)


def _squeezed(view: Tensor, generator: torch.Generator) -> Tensor:
    """Squeeze all but the darkest voxels into a band of the range; the darkest go anywhere below it."""
    first, second, third = torch.rand(3, generator=generator).tolist()
    width = 0.25 + 0.6 * first
    low = (1 - width) * second
    return torch.where(view <= 0.01, torch.full_like(view, low * third), low + width * view)
