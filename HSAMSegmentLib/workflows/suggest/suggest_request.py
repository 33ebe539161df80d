"""What suggesting scans is asked for, and what it answers; plain data without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SuggestRequest:
    """Find the scans of a folder that are worth labeling next.

    Attributes:
        source: folder with volume files and DICOM series, at any depth.
        count: how many to suggest.
        model: id or file of the model that shall learn from them; "" for the one that fits the first scan.
        device: "auto", "cpu", "cuda", ...
        labeled: files of scans that are labeled already: what resembles them teaches little.
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
        name: of the scan.
        path: its file, or the folder with its DICOM files.
        series: which series of that folder, empty for an only one.
        score: sum of both parts; 2 at most.
        uncertainty: entropy of the model's answers, relative to the largest of the folder: 0 to 1.
        novelty: distance to the nearest scan that is labeled or ranks before it, relative to the largest: 0 to 1.
        entropy: the entropy itself, 0 to 1.
        confidence: name and confidence of every structure that was found.
        reasons: sentences for a person.
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
        scans: the most useful first.
        looked_at: how many scans were compared.
        failed: name and reason of each scan that could not be looked at.
        model: id of the model.
    """

    scans: tuple[SuggestedScan, ...]
    looked_at: int
    failed: tuple[tuple[str, str], ...]
    model: str
