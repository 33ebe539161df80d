"""Greedy choice of scans that a model is uncertain about and that differ from each other. Plain numpy.

The next scan is the one with the largest sum of two parts, each between 0 and 1: its uncertainty, and its distance to
the nearest scan that is labeled or chosen before. The distance part alone is the greedy k-center choice of core sets
(Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018). To join
uncertainty with features of the segmentation network itself follows Yang et al., "Suggestive annotation", MICCAI 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choice:
    """One chosen scan.

    Attributes:
        index: which one.
        uncertainty: relative to the largest, 0 to 1.
        novelty: distance to the nearest labeled or chosen scan when it was chosen, relative to the largest at the
            start, 0 to 1.
    """

    index: int
    uncertainty: float
    novelty: float


def choose(features: np.ndarray, entropies: np.ndarray, count: int, labeled: np.ndarray | None = None) -> list[Choice]:
    """Choose scans, the most useful first.

    Args:
        features: [n, d], one row per scan.
        entropies: [n], 0 or more.
        count: how many; all if there are fewer.
        labeled: [m, d], features of scans that are labeled already; the mean of all takes their place if there are
            none, so that the first choice is what is unlike the others.
    """
    if not len(features):
        return []
    centers = labeled if labeled is not None and len(labeled) else features.mean(axis=0, keepdims=True)
    nearest = np.min([np.linalg.norm(features - center, axis=1) for center in centers], axis=0)
    distances, uncertainties = _relative(nearest), _relative(entropies)
    scale = float(nearest.max()) or 1.0
    chosen: list[Choice] = []
    free = np.ones(len(features), bool)
    while free.any() and len(chosen) < count:
        scores = np.where(free, distances + uncertainties, -np.inf)
        index = int(np.argmax(scores))
        chosen.append(Choice(index, float(uncertainties[index]), float(distances[index])))
        free[index] = False
        to_chosen = np.linalg.norm(features - features[index], axis=1) / scale
        distances = np.minimum(distances, to_chosen)
    return chosen


def _relative(values: np.ndarray) -> np.ndarray:
    """The values relative to the largest one; zeros if all are zero."""
    largest = float(np.max(values))
    return values / largest if largest > 0 else np.zeros(len(values))
