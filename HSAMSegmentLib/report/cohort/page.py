"""The cohort page: self-contained HTML for light and dark mode and for wide and narrow screens.

All text from the scans is escaped, and the page forbids itself to load anything or to run any script but its own.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from HSAMSegmentLib import __version__
from HSAMSegmentLib.labels.terminology import fallback_color, find_structure
from HSAMSegmentLib.measurement.findings import readable_number
from HSAMSegmentLib.measurement.statistics import StructureStatistics
from HSAMSegmentLib.report.cohort.cohort import Cohort, CohortScan
from HSAMSegmentLib.report.cohort.strip_chart import Dot, strip_chart
from HSAMSegmentLib.report.cohort.style import SCRIPT, STYLE
from HSAMSegmentLib.report.preview_picture import format_ml
from HSAMSegmentLib.report.segmentation_report import STATEMENT

_MOST_NOTES = 4


def cohort_page(cohort: Cohort, place: Path) -> str:
    """Render the HTML of a cohort.

    Args:
        cohort: the scans.
        place: destination file; links to the files of the scans are relative to it.
    """
    script_hash = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'"
    ids = {scan.name: f"s{number}" for number, scan in enumerate(cohort.scans)}
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(cohort.title)}</title><style>{STYLE}</style></head><body>",
        _header(cohort),
        _worth_a_look(cohort, ids, place),
        _distributions(cohort, ids),
        _table(cohort, ids, place),
        _others(cohort),
        _gallery(cohort, ids),
        f"<script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _header(cohort: Cohort) -> str:
    looks = sum(bool(scan.worth_a_look) for scan in cohort.scans)
    models = ", ".join(sorted({scan.model for scan in cohort.scans if scan.model})) or "unknown"
    numbers = (
        (len(cohort.scans), "scans segmented", "all"),
        (looks, "worth a look", "look"),
        (len(cohort.others), "not segmented", "failed"),
        (len(cohort.structures), "structures", "structures"),
    )
    boxes = "".join(f'<a href="#{place}"><b>{count}</b>{words}</a>' for count, words, place in numbers)
    made = datetime.now().strftime("%Y-%m-%d %H:%M")
    return (
        f"<header><h1>{_text(cohort.title)}</h1>"
        f'<p class="soft">Made on {made} by HSAMSegment {_text(__version__)}. Models: {_text(models)}.<br>'
        f"{STATEMENT}</p>"
        f'<div class="numbers">{boxes}</div>{_notes(cohort.notes)}</header>'
    )


def _notes(notes: Sequence[str]) -> str:
    """A list, folded if it is long, since one reason often applies to all scans."""
    if not notes:
        return ""
    items = f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in notes)}</ul>"
    if len(notes) <= _MOST_NOTES:
        return items
    return f"<details><summary>{len(notes)} remarks, the first: {_text(notes[0])}</summary>{items}</details>"


def _worth_a_look(cohort: Cohort, ids: dict[str, str], place: Path) -> str:
    scans = sorted((scan for scan in cohort.scans if scan.worth_a_look), key=lambda scan: -len(scan.worth_a_look))
    if not scans:
        return '<h2 id="look">Worth a look</h2><p>Nothing is unusual about any scan.</p>'
    cards = "".join(_card(scan, ids[scan.name], place) for scan in scans)
    return (
        '<h2 id="look">Worth a look</h2><p class="soft">Unusual is not wrong: look at the scan. Scans with most '
        f'findings come first.</p><div class="cards">{cards}</div>'
    )


def _card(scan: CohortScan, own_id: str, place: Path) -> str:
    findings = "".join(
        f"<li>{f'<b>{_text(item.structure)}</b> ' if item.structure else ''}{_text(item.text)}</li>"
        for item in scan.worth_a_look
    )
    return (
        f'<div class="card" id="{own_id}">{_picture(scan)}<div><h3>{_text(scan.name)}</h3><ul>{findings}</ul>'
        f'<p class="soft">{_links(scan, place)}</p></div></div>'
    )


def _links(scan: CohortScan, place: Path) -> str:
    return " · ".join(f'<a href="{_link(path, place)}">{_text(title)}</a>' for title, path in scan.files)


def _distributions(cohort: Cohort, ids: dict[str, str]) -> str:
    shown = "".join(_structure(cohort, structure, ids) for structure in cohort.structures)
    if not shown:
        return ""
    return (
        '<h2 id="structures">Distributions</h2><p class="soft">A dot is a scan; red ones are worth a look and lead '
        "there. The bar is the middle half of the scans, the line their median, the green band the range of the "
        "training scans. Structures that the border of the scan may cut off are included.</p>"
        f'<div class="distributions">{shown}</div>'
    )


def _structure(cohort: Cohort, name: str, ids: dict[str, str]) -> str:
    items = [(scan, scan.statistics(name)) for scan in cohort.scans]
    asked = [(scan, item) for scan, item in items if item is not None]
    found = [(scan, item) for scan, item in asked if item.found]
    band = next((known[name] for scan, _ in asked if name in (known := scan.measured.ranges_ml or {})), None)
    unit = next((scan.measured.intensity_unit for scan, _ in found if scan.measured.intensity_unit), "")
    charts = [
        _chart("Volume", "mL", name, [(scan, item.volume_ml) for scan, item in found], ids, band=band, lowest=0.0),
        _chart("Mean intensity", unit, name, [(scan, item.mean) for scan, item in found], ids),
        _chart("Confidence", "%", name, [(scan, _percent(item.confidence)) for scan, item in found], ids),
    ]
    return (
        f'<div class="structure"><h3>{_swatch(name)}{_text(name)} <span class="soft">found in {len(found)} of '
        f'{len(asked)}</span></h3><div class="charts">{"".join(charts)}</div></div>'
    )


def _chart(
    title: str,
    unit: str,
    structure: str,
    values: Sequence[tuple[CohortScan, float | None]],
    ids: dict[str, str],
    *,
    band: tuple[float, float] | None = None,
    lowest: float | None = None,
) -> str:
    known = [(scan, float(value)) for scan, value in values if value is not None]
    if not known:
        return ""
    dots = [
        Dot(value, f"{scan.name}: {readable_number(value)} {unit}".strip(), ids[scan.name], _is_marked(scan, structure))
        for scan, value in known
    ]
    numbers = [value for _, value in known]
    low, median, high = np.percentile(numbers, (5, 50, 95))
    shown = [readable_number(value) for value in (low, median, high)]
    words = f"{title}: median {shown[1]}{f' {unit}' if unit else ''}; nine of ten scans from {shown[0]} to {shown[2]}"
    return f'<div>{strip_chart(dots, band=band, lowest=lowest)}<span class="soft">{_text(words)}</span></div>'


def _table(cohort: Cohort, ids: dict[str, str], place: Path) -> str:
    names = cohort.structures
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in names)
    rows = "".join(_row(scan, names, ids[scan.name], place) for scan in cohort.scans)
    return (
        '<h2 id="all">All scans</h2><p class="soft">Volumes in mL; marked ones are worth a look. A click on a heading '
        "sorts.</p>"
        '<div class="tools"><input type="search" id="search" placeholder="Name of a scan" aria-label="Name of a scan">'
        '<label><input type="checkbox" id="only"> only those worth a look</label></div>'
        '<div class="scroll long"><table id="scans"><thead><tr><th scope="col">scan</th><th scope="col">findings</th>'
        f'{head}<th scope="col">files</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(scan: CohortScan, names: Iterable[str], own_id: str, place: Path) -> str:
    count = len(scan.worth_a_look)
    name = f'<a href="#{own_id}">{_text(scan.name)}</a>' if count else _text(scan.name)
    cells = "".join(_cell(scan, structure) for structure in names)
    look = " data-look" if count else ""
    return f"<tr{look}><td>{name}</td><td>{count or ''}</td>{cells}<td>{_links(scan, place)}</td></tr>"


def _cell(scan: CohortScan, structure: str) -> str:
    item = scan.statistics(structure)
    reasons = "; ".join(finding.text for finding in scan.worth_a_look if finding.structure == structure)
    mark = f' class="mark" title="{_text(reasons)}"' if reasons else ""
    return f"<td{mark}>{_volume(item)}</td>"


def _volume(item: StructureStatistics | None) -> str:
    if item is None:
        return ""
    return format_ml(item.volume_ml) if item.found else "0"


def _others(cohort: Cohort) -> str:
    if not cohort.others:
        return ""
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{_text(state)}</td><td>{_text(reason)}</td></tr>"
        for name, state, reason in cohort.others
    )
    return (
        '<h2 id="failed">Not segmented</h2><div class="scroll words"><table><thead><tr><th scope="col">scan</th>'
        f'<th scope="col">state</th><th scope="col">reason</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _gallery(cohort: Cohort, ids: dict[str, str]) -> str:
    plain = [scan for scan in cohort.scans if scan.picture is not None and not scan.worth_a_look]
    if not plain:
        return ""
    figures = "".join(
        f'<figure id="{ids[scan.name]}">{_picture(scan)}<figcaption>{_text(scan.name)}</figcaption></figure>'
        for scan in plain
    )
    return f'<h2>Pictures of the other scans</h2><div class="gallery">{figures}</div>'


def _picture(scan: CohortScan) -> str:
    if scan.picture is None:
        return ""
    data = b64encode(scan.picture).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="A slice of {_text(scan.name)} with outlines" loading="lazy">'


def _swatch(structure: str) -> str:
    known = find_structure(structure)
    color = known.color if known else fallback_color(sum(structure.encode("utf-8", "replace")))
    shown = ",".join(str(round(255 * part)) for part in color)
    return f'<span class="swatch" style="background:rgb({shown})"></span>'


def _is_marked(scan: CohortScan, structure: str) -> bool:
    return any(finding.structure == structure for finding in scan.worth_a_look)


def _percent(part: float | None) -> float | None:
    return None if part is None else 100.0 * part


def _link(path: Path, place: Path) -> str:
    """A relative link, so that page and results can be moved together; absolute across drives."""
    try:
        relative = os.path.relpath(path.absolute(), place.absolute().parent)
    except ValueError:
        return escape(path.absolute().as_uri())
    # A colon in the first part would be taken for a scheme, so every link begins with a dot.
    return escape("./" + quote(Path(relative).as_posix().encode("utf-8", "surrogateescape")))


def _text(text: str) -> str:
    """Escape text from elsewhere."""
    return escape(str(text).encode("utf-8", "backslashreplace").decode())
