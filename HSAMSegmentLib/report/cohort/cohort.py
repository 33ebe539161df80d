"""The scans of a cohort as plain data, and their outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from HSAMSegmentLib.measurement.findings import BORDER, RANGE, Finding, readable_number
from HSAMSegmentLib.measurement.scan import ScanMeasurements
from HSAMSegmentLib.measurement.statistics import StructureStatistics

OUTLIER, PLAUSIBILITY, CHANGED, GONE = "outlier", "plausibility", "changed", "gone"
_LEAST_SCANS = 8
_MOST_DEVIATIONS = 3.5
_LEAST_LOG_DEVIATION = 0.08
_NORMAL = 1.4826


@dataclass(frozen=True)
class CohortScan:
    """One scan of a cohort.

    Attributes:
        name: name of the scan.
        measured: its measurements.
        model: ID of the model.
        findings: unusual findings.
        files: titles and paths of its existing files.
        picture: a JPEG, or None.
    """

    name: str
    measured: ScanMeasurements
    model: str = ""
    findings: tuple[Finding, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    picture: bytes | None = None

    @property
    def worth_a_look(self) -> tuple[Finding, ...]:
        """Findings that may indicate an error, which being cut off by the border of the scan does not."""
        return tuple(item for item in self.findings if item.kind != BORDER)

    def statistics(self, structure: str) -> StructureStatistics | None:
        """Statistics of a structure; None if it was not segmented."""
        return next((item for item in self.measured.statistics if item.structure == structure), None)


@dataclass(frozen=True)
class Cohort:
    """Many scans.

    Attributes:
        title: headline.
        scans: scans that were segmented.
        others: name, state and reason of the others.
        notes: sentences on unusable results.
    """

    title: str
    scans: tuple[CohortScan, ...]
    others: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of all structures, in the order in which they occur."""
        return tuple(dict.fromkeys(item.structure for scan in self.scans for item in scan.measured.statistics))


def with_outliers(scans: Sequence[CohortScan]) -> tuple[CohortScan, ...]:
    """Add a finding for each volume that is an outlier among the scans.

    An outlier's log-volume is more than 3.5 robust standard deviations from the median (by the median absolute
    deviation; Iglewicz and Hoaglin 1993). Structures that the border of the scan may cut off are excluded on both
    sides. Fewer than eight scans yield no outliers.
    """
    extra: list[list[Finding]] = [[] for _ in scans]
    for structure in dict.fromkeys(item.structure for scan in scans for item in scan.measured.statistics):
        found = [(index, scan.statistics(structure)) for index, scan in enumerate(scans)]
        whole = [(index, item.volume_ml) for index, item in found if item and item.found and not item.touches_border]
        if len(whole) < _LEAST_SCANS:
            continue
        logs = np.log([volume for _, volume in whole])
        center = float(np.median(logs))
        deviation = max(_NORMAL * float(np.median(np.abs(logs - center))), _LEAST_LOG_DEVIATION)
        for (index, volume), value in zip(whole, logs):
            if abs(value - center) > _MOST_DEVIATIONS * deviation:
                if any(item.kind == RANGE and item.structure == structure for item in scans[index].findings):
                    continue
                median = readable_number(float(np.exp(center)))
                text = f"has {readable_number(volume)} mL, the median of the cohort is {median} mL"
                extra[index].append(Finding(OUTLIER, structure, text))
    return tuple(replace(scan, findings=(*scan.findings, *more)) for scan, more in zip(scans, extra))
