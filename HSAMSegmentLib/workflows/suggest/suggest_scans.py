"""Survey every scan of a folder with a model, and suggest which ones to label next.

The next scan is the one with the largest sum of two scores, each between 0 and 1: its uncertainty, and its distance to
the nearest scan that is labeled or already chosen. The distance alone is the greedy k-center selection of core sets
(Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018). Combining
uncertainty with features of the segmentation network itself follows Yang et al., "Suggestive annotation", MICCAI 2017.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from HSAMSegmentLib.errors import CancelledError, HSAMSegmentError, RequestError
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.inference.scan_survey import Survey, survey
from HSAMSegmentLib.io.scan_folder import Scan, find_scans
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.runtime.devices import choose_device
from HSAMSegmentLib.runtime.progress import Progress, interruptible
from HSAMSegmentLib.weights.loading import LoadedModel
from HSAMSegmentLib.workflows.context import Context
from HSAMSegmentLib.workflows.suggest.suggest_request import SuggestedScan, Suggestions, SuggestRequest

logger = logging.getLogger(__name__)

_LOW_CONFIDENCE_RATIO = 0.8
"""Structures with a confidence below this fraction of their median over the folder are named."""
_MUCH = 0.6
_MOST_REASONS = 4


@dataclass(frozen=True)
class Choice:
    """One chosen scan.

    Attributes:
        index: index of the scan.
        uncertainty: relative to the largest, 0 to 1.
        novelty: distance to the nearest labeled or chosen scan at the time of its choice, relative to the largest at
            the start, 0 to 1.
    """

    index: int
    uncertainty: float
    novelty: float


def choose(features: np.ndarray, entropies: np.ndarray, count: int, labeled: np.ndarray | None = None) -> list[Choice]:
    """Choose scans, most useful first.

    Args:
        features: [n, d], one row per scan.
        entropies: [n], 0 or more.
        count: number of scans to choose; all if there are fewer.
        labeled: [m, d], features of already labeled scans; without any, the mean of all scans is used, so that the
            first choice is the one least like the others.
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


@dataclass(frozen=True)
class _Looked:
    """A surveyed scan."""

    scan: Scan
    survey: Survey


def run(request: SuggestRequest, context: Context) -> Suggestions:
    """Suggest scans; an unreadable scan does not stop the others.

    Raises:
        RequestError: if there is no scan, none can be surveyed, or no model fits.
        ModelNotFoundError, CheckpointError, DeviceError: if the model or device cannot be used.
        CancelledError: on cancel.
    """
    if request.count < 1:
        raise RequestError(f"The number of scans to suggest must be 1 or more, not {request.count}.")
    device = choose_device(request.device).name
    found = interruptible(lambda: find_scans(request.source), context.cancel)
    labeled = {Path(path).resolve() for path in request.labeled}
    scans = [scan for scan in found if not scan.skipped and scan.path.resolve() not in labeled]
    known = [Scan(path, path.name) for path in sorted(labeled)]
    looked, failed, model = _look_at((*known, *scans), request, context, device)
    candidates = [item for item in looked if item.scan not in known]
    if not candidates or model is None:
        reason = f" {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise RequestError(f"No scan of {request.source} could be looked at.{reason}")
    context.emit(Progress(1.0, "Done", eta_seconds=0.0))
    return Suggestions(
        scans=_ranked(candidates, [item for item in looked if item.scan in known], request.count),
        looked_at=len(candidates),
        failed=tuple(failed),
        model=model.manifest.id,
    )


def _look_at(
    scans: tuple[Scan, ...], request: SuggestRequest, context: Context, device: str
) -> tuple[list[_Looked], list[tuple[str, str]], LoadedModel | None]:
    """Survey all readable scans; return them, the problems of the others, and the model used for all."""
    looked: list[_Looked] = []
    failed: list[tuple[str, str]] = []
    model = interruptible(lambda: context.models.named(request.model), context.cancel)
    for index, scan in enumerate(scans):
        context.cancel.raise_if_cancelled()
        place = f"scan {index + 1} of {len(scans)}, {scan.name}"
        context.emit(Progress(index / len(scans), "Looking at the scans", place))
        try:
            volume = interruptible(partial(_opened, scan), context.cancel)
            if model is None:
                model = context.models.for_volume(volume, "", ())[0]
            looked.append(_Looked(scan, survey(volume, model, device=device, cancel=context.cancel)))
        except CancelledError:
            raise
        except HSAMSegmentError as error:
            logger.info("%s cannot be looked at: %s", scan.path, error)
            failed.append((scan.name, str(error)))
    return looked, failed, model


def _opened(scan: Scan) -> Volume:
    if scan.problem:
        raise RequestError(scan.problem)
    return read_volume(scan.path, series=scan.series)


def _ranked(candidates: list[_Looked], known: list[_Looked], count: int) -> tuple[SuggestedScan, ...]:
    features = np.stack([item.survey.features for item in candidates])
    entropies = np.array([item.survey.entropy for item in candidates])
    labeled = np.stack([item.survey.features for item in known]) if known else None
    usual = _usual_confidence(candidates)
    return tuple(
        _suggestion(rank, candidates[choice.index], choice, usual)
        for rank, choice in enumerate(choose(features, entropies, count, labeled), start=1)
    )


def _usual_confidence(candidates: list[_Looked]) -> dict[str, float]:
    """Median confidence of each structure that more than half of the scans show."""
    values: dict[str, list[float]] = {}
    for item in candidates:
        for name, confidence in item.survey.confidence:
            values.setdefault(name, []).append(confidence)
    return {name: float(np.median(found)) for name, found in values.items() if 2 * len(found) > len(candidates)}


def _suggestion(rank: int, item: _Looked, choice: Choice, usual: dict[str, float]) -> SuggestedScan:
    return SuggestedScan(
        rank=rank,
        name=item.scan.name,
        path=str(item.scan.path),
        series=item.scan.series or "",
        score=choice.uncertainty + choice.novelty,
        uncertainty=choice.uncertainty,
        novelty=choice.novelty,
        entropy=item.survey.entropy,
        confidence=item.survey.confidence,
        reasons=_reasons(item.survey, choice, usual),
    )


def _reasons(found: Survey, choice: Choice, usual: dict[str, float]) -> tuple[str, ...]:
    reasons = []
    if choice.novelty >= _MUCH:
        reasons.append("It looks unlike the labeled scans and those before it.")
    if choice.uncertainty >= _MUCH:
        reasons.append("The model is among its least certain here.")
    confidence = dict(found.confidence)
    missing = [name for name in usual if name not in confidence]
    if missing:
        reasons.append(f"Not found: {', '.join(missing)}.")
    low = sorted(
        (value / usual[name], name, value)
        for name, value in confidence.items()
        if name in usual and value < _LOW_CONFIDENCE_RATIO * usual[name]
    )
    reasons += [f"Low confidence of {name}: {value:.2f}, {usual[name]:.2f} as a rule." for _, name, value in low]
    return tuple(reasons[:_MOST_REASONS]) or ("It adds most to those before it.",)
