"""Request and result of suggesting scans to label; plain data without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SuggestRequest:
    """Find the scans of a folder that are most worth labeling next.

    Attributes:
        source: folder with volume files and DICOM series, at any depth.
        count: number of scans to suggest.
        model: ID or file of the model to improve; "" for the one that fits the first scan.
        device: "auto", "cpu", "cuda", ...
        labeled: files of already labeled scans; similar scans add little.
    """

    kind: ClassVar[str] = "suggest"

    source: str
    count: int
    model: str = ""
    device: str = "auto"
    labeled: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuggestedScan:
    """A scan that is worth labeling.

    Attributes:
        rank: 1 for the first one to label.
        name: name of the scan.
        path: its file, or the folder with its DICOM files.
        series: DICOM series in that folder; empty if there is only one.
        score: sum of uncertainty and novelty; 2 at most.
        uncertainty: entropy of the model's predictions, relative to the largest in the folder: 0 to 1.
        novelty: distance to the nearest scan that is labeled or ranked higher, relative to the largest: 0 to 1.
        entropy: the entropy itself, 0 to 1.
        confidence: name and confidence of every structure found.
        reasons: sentences for the user.
    """

    rank: int
    name: str
    path: str
    series: str
    score: float
    uncertainty: float
    novelty: float
    entropy: float
    confidence: tuple[tuple[str, float], ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Suggestions:
    """The result of a `SuggestRequest`.

    Attributes:
        scans: most useful first.
        looked_at: number of scans that were compared.
        failed: name and reason of each scan that could not be surveyed.
        model: ID of the model.
    """

    scans: tuple[SuggestedScan, ...]
    looked_at: int
    failed: tuple[tuple[str, str], ...]
    model: str
