"""Whether the slices of a series lie at even distances on one line, and the true cause where they do not."""

from __future__ import annotations

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.dicom.grouping import SAME_PLACE_MM, Series, depths_mm

# Distances of slices may differ by this part without a word, and with a note.
_EVEN, _NEARLY_EVEN = 0.02, 0.10
# So many pixels may a slice lie beside the line through the others without a word, and with a note.
_IN_LINE, _NEARLY_IN_LINE = 0.1, 0.5
# Cosines that differ by more are told.
_SAME_DIRECTION = 1e-3
_SHORTEST_RUN = 3


def check_distances(series: Series) -> tuple[str, ...]:
    """Make sure that the slices are at even distances on one line.

    Returns:
        Notes on what is not exactly so.

    Raises:
        VolumeError: if slices are missing, doubled, unevenly spaced, or shifted sideways.
    """
    _check_places(series)
    gaps = np.diff(depths_mm(series.headers))
    doubled = int(np.count_nonzero(gaps < SAME_PLACE_MM))
    if doubled:
        raise VolumeError(
            f"{doubled} slices of {series} are at the same place as another; it is not one volume. They are several "
            "phases, echoes or repetitions that the files do not tell apart, or changed copies; put each set into a "
            "folder of its own."
        )
    usual = float(np.median(gaps))
    deviation = float(np.abs(gaps / usual - 1.0).max())
    span = f"{gaps.min():.2f} to {gaps.max():.2f} mm"
    if deviation > _NEARLY_EVEN:
        raise VolumeError(_cause(series, gaps, span))
    notes = (*_check_line(series), *_direction_notes(series))
    if deviation > _EVEN:
        notes = (f"The distances of slices vary ({span}); their mean was used.", *notes)
    return notes


def _check_places(series: Series) -> None:
    if any(header.is_skewed for header in series.headers):
        raise VolumeError(
            f"The orientation (ImageOrientationPatient) of {series} is not two directions at right angles, so where it "
            "lies is not known; export the series again."
        )
    if any(header.position is None or header.orientation is None for header in series.headers):
        raise VolumeError(
            f"The files of {series} do not say where their slices are; they form no volume. Export the series again "
            "with positions and orientations."
        )


def _cause(series: Series, gaps: np.ndarray, span: str) -> str:
    """Why the slices are unevenly spaced, as a sentence."""
    steps = _steps(gaps)
    if _thicknesses(series) > 1 or len(steps) > 1:
        shown = ", then ".join(f"{len(step)} of {np.median(step):.2f} mm" for step in steps or [gaps])
        return (
            f"{series} has slices at more than one distance (distances: {shown}), as scanners make that "
            "change the thickness on the way; nothing needs to be missing. Resample it to even distances first, or put "
            "the files of each part into a folder of its own."
        )
    usual = float(np.median(gaps))
    lacking = np.maximum(np.round(gaps / usual) - 1, 0)
    whole = np.abs(gaps / usual - (lacking + 1)) < _NEARLY_EVEN * (lacking + 1)
    if lacking.any() and whole.all():
        stacks = ", or it holds two stacks with a gap between" if _is_one_hole(lacking) else ""
        return (
            f"{int(lacking.sum())} slices of {series} are missing (distances are {span}){stacks}; export the series "
            "again."
        )
    return f"The slices of {series} are unevenly spaced ({span}); resample it to even distances first."


def _is_one_hole(lacking: np.ndarray) -> bool:
    """Whether slices lack at one place only, with a stack on either side."""
    holes = np.flatnonzero(lacking)
    return len(holes) == 1 and _SHORTEST_RUN <= holes[0] < len(lacking) - _SHORTEST_RUN


def _thicknesses(series: Series) -> int:
    """How many slice thicknesses the files name that differ by more than rounding."""
    known = sorted({header.slice_thickness_mm for header in series.headers if header.slice_thickness_mm > 0})
    return 1 + sum(b / a > 1 + _NEARLY_EVEN for a, b in zip(known, known[1:])) if known else 0


def _steps(gaps: np.ndarray) -> list[np.ndarray]:
    """The distances that runs of slices have, without runs that are too short: the gaps of each."""
    borders = np.flatnonzero(np.abs(np.diff(gaps)) > _NEARLY_EVEN * gaps[:-1]) + 1
    steps: list[np.ndarray] = []
    for run in np.split(gaps, borders):
        if len(run) < _SHORTEST_RUN:
            continue
        # The same distance before and after a hole is one step.
        known = [n for n, step in enumerate(steps) if abs(np.median(run) / np.median(step) - 1) < _NEARLY_EVEN]
        if known:
            steps[known[0]] = np.concatenate([steps[known[0]], run])
        else:
            steps.append(run)
    return steps


def _direction_notes(series: Series) -> tuple[str, ...]:
    deviation = float(np.ptp([header.orientation or () for header in series.headers], axis=0).max())
    if deviation <= _SAME_DIRECTION:
        return ()
    degrees = np.degrees(deviation)
    return (f"The orientations of slices vary by up to {degrees:.2f} degrees; that of the first was used.",)


def _check_line(series: Series) -> tuple[str, ...]:
    """Make sure that the first pixels of the slices are on one line."""
    positions = np.array([header.position for header in series.headers])
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    offsets = positions - positions[0] - np.arange(len(positions))[:, np.newaxis] * step
    normal = series.headers[0].normal
    beside = float(np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1).max())
    pixel = min(series.headers[0].pixel_spacing_mm or (1.0,))
    if beside > _NEARLY_IN_LINE * pixel:
        raise VolumeError(
            f"The slices of {series} do not line up (one is shifted sideways by {beside:.2f} mm), so they form no "
            "volume; export the series again, or resample it to one grid first."
        )
    if beside > _IN_LINE * pixel:
        return (f"Slices are shifted sideways by up to {beside:.2f} mm; they were taken as lined up.",)
    return ()
