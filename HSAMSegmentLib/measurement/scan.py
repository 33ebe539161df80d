"""Measurements of one scan: statistics of its structures, and unusual findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.measurement.findings import Finding, find_unusual
from HSAMSegmentLib.measurement.statistics import StructureStatistics, intensity_unit, measure


@dataclass(frozen=True)
class ScanMeasurements:
    """The measurements of one scan.

    Attributes:
        statistics: one entry per structure, including those that were not found.
        findings: unusual findings.
        intensity_unit: "HU" for CT, else "".
        ranges_ml: lowest and highest volume in the training scans, by structure name, if known.
    """

    statistics: tuple[StructureStatistics, ...]
    findings: tuple[Finding, ...] = ()
    intensity_unit: str = ""
    ranges_ml: Mapping[str, tuple[float, float]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "intensity_unit": self.intensity_unit,
            "structures": [item.to_json() for item in self.statistics],
            "findings": [asdict(item) for item in self.findings],
            "training_range_ml": {name: list(bounds) for name, bounds in (self.ranges_ml or {}).items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScanMeasurements:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: if it is anything else.
        """
        return cls(
            statistics=tuple(StructureStatistics.from_json(item) for item in data["structures"]),
            findings=tuple(Finding(item["kind"], item["structure"], item["text"]) for item in data["findings"]),
            intensity_unit=str(data["intensity_unit"]),
            ranges_ml={name: (float(low), float(high)) for name, (low, high) in data["training_range_ml"].items()},
        )


def measure_scan(
    segmentation: Segmentation,
    volume: Volume | None = None,
    *,
    confidences: Mapping[str, float | None] | None = None,
    ranges_ml: Mapping[str, tuple[float, float]] | None = None,
) -> ScanMeasurements:
    """Measure the structures of a scan, and find what is unusual.

    Args:
        segmentation: the labels.
        volume: the scan on the same grid; None to skip intensities.
        confidences: the model's confidence by structure name.
        ranges_ml: volumes in the model's training scans by structure name.

    Raises:
        RequestError: if the scan has another grid than the labels.
    """
    statistics = measure(segmentation, volume, confidences)
    unusual = find_unusual(segmentation.labels, statistics, ranges_ml)
    return ScanMeasurements(statistics, unusual, intensity_unit(volume), ranges_ml)
