"""The scans of a folder: volume files and DICOM series, at any depth, each with a name for its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from HSAMSegmentLib.errors import HSAMSegmentError, RequestError
from HSAMSegmentLib.io.content_kind import content_problem
from HSAMSegmentLib.io.dicom.series import unreadable_files
from HSAMSegmentLib.io.dicom.sniff import has_dicom_content
from HSAMSegmentLib.io.folder_labels import label_maps
from HSAMSegmentLib.io.image_files import IMAGE_SUFFIXES, SEGMENTATION_SUFFIXES, name_without_suffix
from HSAMSegmentLib.io.volume_files import list_series


@dataclass(frozen=True)
class Scan:
    """One scan of a folder.

    Attributes:
        path: file, or the folder that its DICOM files are in.
        name: path below the input folder without suffix, unique; results are named by it.
        series: which series of the folder, or None for a file or an only series.
        problem: why it cannot be read, as far as that is known already; else empty.
        uid: what only files of the same DICOM series have in common, empty for other files or without a series UID.
        skipped: why it is left out though nothing is wrong with it (a label map, say); else empty.
    """

    path: Path
    name: str
    series: str | None = None
    problem: str = ""
    uid: str = ""
    skipped: str = ""


def find_scans(folder: str | Path, *, ignored: Path | None = None) -> tuple[Scan, ...]:
    """All scans of a folder, sorted by name, and after them what is skipped; scout images are left out.

    Label maps, links to folders and DICOMDIR files are skipped, each with a sentence. Links without content and folders
    that cannot be opened are scans with a problem: what they should hold is missing from the results.

    Args:
        folder: where to look, the folders in it included.
        ignored: folder that is left out: that of the results, where it lies in `folder`.

    Raises:
        RequestError: if there is no such folder, or no scan in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}; check the path.")
    found = sorted(_whole_series(list(_walk(folder, folder, ignored))), key=lambda scan: (scan.name, str(scan.path)))
    skipped = [scan for scan in found if scan.skipped]
    scans = [scan for scan in found if not scan.skipped]
    if not scans:
        why = f" {skipped[0].skipped}" if skipped else ""
        raise RequestError(
            f"There is no scan in {folder}. Scans are DICOM files and files that end in {', '.join(IMAGE_SUFFIXES)}."
            f"{why}"
        )
    return tuple(with_unique_names(scans + skipped))


def _walk(folder: Path, root: Path, ignored: Path | None) -> Iterator[Scan]:
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        yield Scan(folder, _name(folder, root), problem=f'The folder "{folder}" cannot be opened ({reason}).')
        return
    files = [entry for entry in entries if entry.is_file()]
    dicom = {file for file in files if file.name.upper() != "DICOMDIR" and has_dicom_content(file)}
    if dicom:
        yield from _series_of(folder, root)
    yield from _unreadable(folder, root)
    yield from _volumes([file for file in files if file not in dicom], root)
    for entry in entries:
        yield from _no_file(entry, root)
        if entry.is_dir() and not entry.is_symlink() and (ignored is None or entry.resolve() != ignored.resolve()):
            yield from _walk(entry, root, ignored)


def _volumes(files: list[Path], root: Path) -> Iterator[Scan]:
    """The files with a volume, label maps and lists of DICOM files as skipped ones."""
    volumes = [file for file in files if _is_volume(file)]
    segmentations = [file for file in files if file.name.lower().endswith(SEGMENTATION_SUFFIXES)]
    labels = label_maps(volumes + segmentations, root)
    for file in volumes + segmentations:
        yield Scan(file, _name(file, root), skipped=labels.get(file, ""))
    for file in files:
        if file.name.upper() == "DICOMDIR":
            yield Scan(
                file, _name(file, root), skipped=f'"{file.name}" lists DICOM files and is not a scan; it was skipped.'
            )


def _no_file(entry: Path, root: Path) -> Iterator[Scan]:
    """Links that lead nowhere, and links to a folder, which are not followed: they may lead in circles."""
    if not entry.is_symlink():
        return
    if entry.is_dir():
        yield Scan(
            entry,
            _name(entry, root),
            skipped=f'"{entry.name}" is a link to a folder, which is not followed; choose that folder itself.',
        )
    elif not entry.exists() and _may_be_an_image(entry):
        yield Scan(entry, _name(entry, root), problem=content_problem(entry))


def _may_be_an_image(entry: Path) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) or not entry.suffix


def _name(path: Path, root: Path) -> str:
    return root.resolve().name if path == root else str(path.with_name(name_without_suffix(path)).relative_to(root))


def _series_of(folder: Path, root: Path) -> Iterator[Scan]:
    """The series whose files lie in this very folder."""
    name = str(folder.relative_to(root)) if folder != root else folder.resolve().name
    try:
        below = list_series(folder)
    except HSAMSegmentError as error:
        yield Scan(folder, name, problem=str(error))
        return
    found = [series for series in below if series.headers[0].path.parent == folder]
    wanted = [series for series in found if not series.is_localizer] or found
    often = Counter(series.number for series in wanted)
    for series in wanted:
        own = series.number if series.number and often[series.number] == 1 else series.id.replace("/", "-")
        yield Scan(
            folder,
            name if len(wanted) == 1 else f"{name}_{own}",
            None if len(below) == 1 else series.id,
            uid="\0".join(series.key) if series.headers[0].series_uid else "",
        )


def _unreadable(folder: Path, root: Path) -> Iterator[Scan]:
    """One line for the files of a folder that are named like DICOM and are none."""
    reasons = unreadable_files(folder)
    if reasons:
        name, reason = next(iter(reasons.items()))
        more = f", and {len(reasons) - 1} more files of the folder cannot be read" if len(reasons) > 1 else ""
        file = folder / name
        own = str((folder / name_without_suffix(file)).relative_to(root))
        yield Scan(file, own, problem=f'"{name}" {reason}{more}.')


def _whole_series(scans: list[Scan]) -> Iterator[Scan]:
    """Give a problem to series with files in several folders: each would be taken for a scan, and be a part only."""
    folders: dict[str, list[str]] = {}
    for scan in scans:
        folders.setdefault(scan.uid, []).append(str(scan.path))
    for scan in scans:
        places = folders[scan.uid]
        if not scan.uid or len(places) == 1:
            yield scan
            continue
        yield replace(
            scan,
            problem=f"Files of one series are in several folders: {', '.join(places)}. Put them into one folder, or "
            "move copies away.",
        )


def _is_volume(file: Path) -> bool:
    name = file.name.lower()
    if name.endswith(SEGMENTATION_SUFFIXES) or not name.endswith(IMAGE_SUFFIXES):
        return False
    return not (name.endswith(".img") and file.with_suffix(".hdr").exists())


def with_unique_names(scans: Sequence[Scan]) -> Iterator[Scan]:
    """Two files that differ in their suffix only get it into their name; what is left gets a number.

    Names that differ in upper and lower case only count as the same: on some disks their results would be one file.
    """
    often = Counter(scan.name.casefold() for scan in scans if not scan.skipped)
    used: set[str] = set()
    for scan in scans:
        name = scan.name
        if often[name.casefold()] > 1 and scan.path.is_file():
            suffix = scan.path.name[len(name_without_suffix(scan.path)) :]
            name = f"{name}{suffix.replace('.', '_')}"
        unique, number = name, 1
        while unique.casefold() in used or (unique != scan.name and unique.casefold() in often):
            number += 1
            unique = f"{name}_{number}"
        used.add(unique.casefold())
        yield replace(scan, name=unique)
