"""Group DICOM files into volumes, and name the volumes of a folder.

Files are grouped by series, size, orientation and pixel spacing, with a tolerance; if several images share a position
(echoes, time points, b-values), each set becomes a volume of its own. If slices are not evenly spaced on a line, the
error names the cause.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from HSAMSegmentLib.errors import VolumeError
from HSAMSegmentLib.io.dicom.header import SPLITTING, DicomHeader

SAME_PLACE_MM = 1e-3
# Direction cosines and pixel spacings (in mm) that differ by less belong to one volume.
_SAME_COSINE, _SAME_SPACING_MM = 0.01, 1e-3
_SCOUT_WORDS = ("localizer", "localiser", "scout", "topogram", "survey")
# Shorter UID endings may be mistaken series numbers.
_SHORTEST_END = 5
_NO_UID = "unnamed"

# Relative deviation of slice distances that is accepted silently, and with a note.
_EVEN, _NEARLY_EVEN = 0.02, 0.10
# Pixels that a slice may be off the line through the others: silently, and with a note.
_IN_LINE, _NEARLY_IN_LINE = 0.1, 0.5
# Direction cosines that differ by more are reported.
_SAME_DIRECTION = 1e-3
_SHORTEST_RUN = 3


@dataclass(frozen=True)
class Series:
    """Files that form one volume.

    Attributes:
        id: series instance UID ("unnamed" without one), with "/2", "/3", ... for further volumes of the same series.
        number: series number as text, may be empty.
        description: series description, and what distinguishes this volume from others of its series.
        modality: DICOM's modality.
        headers: headers of its files, in slice order.
    """

    id: str
    number: str
    description: str
    modality: str
    headers: tuple[DicomHeader, ...]

    @property
    def slice_count(self) -> int:
        """Number of slices of the volume."""
        return sum(header.frames for header in self.headers)

    @property
    def is_localizer(self) -> bool:
        """Whether these are localizer images, which are chosen only if there is nothing else."""
        words = self.description.lower()
        return any(header.is_localizer for header in self.headers) or any(word in words for word in _SCOUT_WORDS)

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies this volume across folders."""
        return (*self.headers[0].series_key, self.id)

    def __str__(self) -> str:
        return f"{f'series {self.number}' if self.number else self.id} {self.summary}"

    @property
    def summary(self) -> str:
        """Description, modality and number of slices."""
        return f'"{self.description}" ({self.modality}, {self.slice_count} slices)'


def group_files(headers: Sequence[DicomHeader]) -> list[Series]:
    """Group files into volumes, sorted by series number."""
    groups: dict[tuple[Any, ...], list[DicomHeader]] = defaultdict(list)
    for header in headers:
        several = header.instance if header.frames > 1 else ""
        key = (header.series_key, header.size, header.is_localizer, header.is_mosaic, header.is_picture, several)
        groups[key].append(header)
    parts: dict[str, list[Series]] = defaultdict(list)
    for members in groups.values():
        for near in _near_together(members):
            uid = near[0].series_uid or _NO_UID
            parts[uid] += [_series(part, name, uid) for part, name in _split_shared_places(_without_copies(near))]
    found = [volume for volumes in parts.values() for volume in _numbered(volumes)]
    return sorted(found, key=lambda volume: (_as_number(volume.number), volume.id))


def depths_mm(headers: Sequence[DicomHeader]) -> np.ndarray:
    """Position of each slice along the normal of the first; 0 if a file does not say."""
    normal = headers[0].normal
    return np.array([0.0 if header.position is None else float(normal @ header.position) for header in headers])


def listed(found: Sequence[Series], among: Sequence[Series] = ()) -> str:
    """Pair each volume with a unique name: its number, or its ID if others share the number.

    Args:
        found: the volumes to list.
        among: all volumes that a name is looked up in, if these are more.
    """
    often = Counter(volume.number for volume in among or found)
    return ", ".join(
        str(volume) if volume.number and often[volume.number] == 1 else f"{volume.id} {volume.summary}{_date(volume)}"
        for volume in found
    )


def matching(found: Sequence[Series], wanted: str) -> list[Series]:
    """The volumes matching an ID, a number, a description, or the end of an ID."""
    wanted = wanted.strip()
    exact: tuple[Callable[[Series], bool], ...] = (
        lambda volume: volume.id == wanted,
        lambda volume: volume.number == wanted,
        lambda volume: volume.description.lower() == wanted.lower(),
        lambda volume: len(wanted) >= _SHORTEST_END and volume.id.endswith(wanted),
    )
    for means in exact:
        matches = [volume for volume in found if means(volume)]
        if matches:
            return matches
    return []


def _date(volume: Series) -> str:
    date = volume.headers[0].study_date
    return f" of {date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else ""


def _near_together(headers: list[DicomHeader]) -> Iterator[list[DicomHeader]]:
    """Cluster images whose orientation and pixel spacing nearly equal those of the first of the cluster."""
    sets: list[list[DicomHeader]] = []
    for header in headers:
        for members in sets:
            if _is_near(members[0], header):
                members.append(header)
                break
        else:
            sets.append([header])
    yield from sets


def _is_near(one: DicomHeader, other: DicomHeader) -> bool:
    return _differ_less(one.orientation, other.orientation, _SAME_COSINE) and _differ_less(
        one.pixel_spacing_mm, other.pixel_spacing_mm, _SAME_SPACING_MM
    )


def _differ_less(one: tuple[float, ...] | None, other: tuple[float, ...] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) < tolerance for a, b in zip(one, other))


def _as_number(text: str) -> float:
    return float(text) if text.isdecimal() else np.inf


def _series(headers: list[DicomHeader], name: str, uid: str) -> Series:
    first = headers[0]
    description = " ".join(part for part in (first.description, f"({name})" if name else "") if part)
    ordered = tuple(headers[n] for n in np.argsort(depths_mm(headers), kind="stable"))
    return Series(uid, first.series_number, description, first.modality, ordered)


def _numbered(volumes: list[Series]) -> list[Series]:
    """Distinguish volumes of one series: the largest keeps the UID, further ones get a number."""
    volumes = sorted(volumes, key=lambda volume: -volume.slice_count)
    return [volume if n == 0 else replace(volume, id=f"{volume.id}/{n + 1}") for n, volume in enumerate(volumes)]


def _without_copies(headers: list[DicomHeader]) -> list[DicomHeader]:
    """One file per image, if a folder holds copies of the same file."""
    return list({header.instance: header for header in reversed(headers)}.values())[::-1]


def _split_shared_places(headers: list[DicomHeader]) -> list[tuple[list[DicomHeader], str]]:
    """Split images at shared positions by the first element, or pair of elements, that distinguishes them."""
    most = _most_at_one_place(headers)
    if most == 1 or headers[0].is_mosaic:
        return [(headers, "")]
    meanings = list(SPLITTING.values())
    telling = [n for n in range(len(meanings)) if len({header.splitting[n] for header in headers}) > 1]
    for chosen in itertools.chain(((n,) for n in telling), itertools.combinations(telling, 2)):
        sets: dict[tuple[str, ...], list[DicomHeader]] = defaultdict(list)
        for header in headers:
            sets[tuple(header.splitting[n] for n in chosen)].append(header)
        # An element with a different value for each slice (a time) does not distinguish volumes.
        if len(sets) <= 2 * most and all(_most_at_one_place(members) == 1 for members in sets.values()):
            names = {values: [f"{meanings[n]} {value}" for n, value in zip(chosen, values)] for values in sets}
            return [(members, ", ".join(name.strip() for name in names[values])) for values, members in sets.items()]
    return [(headers, "")]


def _most_at_one_place(headers: list[DicomHeader]) -> int:
    depths = np.sort(depths_mm(headers))
    starts = np.flatnonzero(np.diff(depths, prepend=-np.inf) >= SAME_PLACE_MM)
    return int(np.diff(starts, append=len(depths)).max())


def check_distances(series: Series) -> tuple[str, ...]:
    """Ensure that the slices are evenly spaced on one line.

    Returns:
        Notes on small deviations.

    Raises:
        VolumeError: if slices are missing, duplicated, unevenly spaced, or shifted sideways.
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
    """A sentence on why the slices are unevenly spaced."""
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
    """Whether slices are missing in one place only, with a stack on either side."""
    holes = np.flatnonzero(lacking)
    return len(holes) == 1 and _SHORTEST_RUN <= holes[0] < len(lacking) - _SHORTEST_RUN


def _thicknesses(series: Series) -> int:
    """Number of distinct slice thicknesses in the files, beyond rounding."""
    known = sorted({header.slice_thickness_mm for header in series.headers if header.slice_thickness_mm > 0})
    return 1 + sum(b / a > 1 + _NEARLY_EVEN for a, b in zip(known, known[1:])) if known else 0


def _steps(gaps: np.ndarray) -> list[np.ndarray]:
    """Distinct slice distances, each with its gaps; runs that are too short are ignored."""
    borders = np.flatnonzero(np.abs(np.diff(gaps)) > _NEARLY_EVEN * gaps[:-1]) + 1
    steps: list[np.ndarray] = []
    for run in np.split(gaps, borders):
        if len(run) < _SHORTEST_RUN:
            continue
        # The same distance before and after a hole counts once.
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
    """Ensure that the first pixels of the slices are on one line."""
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
