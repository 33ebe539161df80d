"""Picture of a segmentation: a montage of slices with colored outlines, a legend with volumes, and patient sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.orientation import SliceFrame, slice_frame
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.label_set import Label
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.runtime.atomic_files import atomic_output, refuse_existing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREVIEW_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")

_CELL_INCHES = 2.3
_LEGEND_INCHES = 2.5
_LEGEND_ROW_INCHES = 0.24
_HEADER_INCHES = 0.55
_DPI = 200
_CT_WINDOW_HU = (-160.0, 240.0)
_DARK = 0.35
_TOO_CLOSE = 0.3
"""Distance in RGB, each channel 0 to 1, from which two outlines are easy to distinguish."""

_PALETTE = (
    (0.35, 0.70, 1.00),
    (1.00, 0.85, 0.20),
    (0.30, 0.90, 0.45),
    (1.00, 0.45, 0.80),
    (1.00, 0.35, 0.25),
    (0.25, 0.95, 0.95),
    (0.70, 0.55, 1.00),
    (1.00, 0.60, 0.15),
    (0.75, 1.00, 0.35),
    (0.50, 0.50, 0.20),
    (0.20, 0.55, 0.55),
    (0.65, 0.40, 0.20),
)
_MARGIN_PART = 0.06
"""Margin kept around the body when cropping empty borders, as a fraction of the slice."""


@dataclass(frozen=True)
class _View:
    """Image and label stacks, cropped to the part to show."""

    image: np.ndarray
    labels: np.ndarray
    rows: slice
    columns: slice
    limits: tuple[float, float]
    aspect: float
    colors: dict[int, tuple[float, float, float]]


def write_preview(
    volume: Volume,
    segmentation: Segmentation,
    path: str | Path,
    *,
    title: str = "",
    slices: int = 12,
    plane: str = "acquisition",
    overwrite: bool = False,
) -> Path:
    """Write a montage of slices through the segmentation.

    Args:
        volume: the scan.
        segmentation: its labels, on the same grid.
        path: .png, .pdf, .svg or .jpg.
        title: headline; default: the volume's name.
        slices: maximum number of slices, evenly spread over the segmented range (over all slices if it is empty).
        plane: as in `SliceRule.plane`.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        RequestError: if the suffix is none of the four or the grids differ.
        OutputError: if the file exists already or cannot be written.
    """
    path = Path(path)
    check_preview_path(path)
    refuse_existing(path, overwrite)
    figure = preview_figure(volume, segmentation, title=title, slices=slices, plane=plane)
    with atomic_output(path, overwrite=overwrite) as stream:
        figure.savefig(stream, format=path.suffix[1:].lower(), dpi=_DPI, facecolor="white")
    return path


def check_preview_path(path: Path) -> None:
    """Raise a RequestError if the suffix is not that of a supported picture format."""
    if path.suffix.lower() not in PREVIEW_SUFFIXES:
        raise RequestError(f"A preview is a {', '.join(PREVIEW_SUFFIXES)} file, not '{path.name}'.")


def preview_figure(
    volume: Volume, segmentation: Segmentation, *, title: str = "", slices: int = 12, plane: str = "acquisition"
) -> Figure:
    """The montage as a matplotlib figure without a window. For the arguments see `write_preview`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if segmentation.array.shape != volume.array.shape:
        raise RequestError("The segmentation and the volume have different sizes; a preview needs the same grid.")
    frame = slice_frame(volume.geometry, plane)
    view = _view(volume, segmentation, frame)
    shown = shown_slices(segmentation, frame, slices)
    columns, rows = _grid(len(shown), view)
    cell_width, cell_height = _cell_size(view)
    present = _present_labels(segmentation)
    legend_height = _LEGEND_ROW_INCHES * (len(present) + 1)
    width = columns * cell_width + _LEGEND_INCHES
    height = max(rows * cell_height, legend_height) + _HEADER_INCHES
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    for position, index in enumerate(shown):
        row, column = divmod(position, columns)
        left = column * cell_width / width
        bottom = 1.0 - (_HEADER_INCHES + (row + 1) * cell_height) / height
        axes = figure.add_axes((left, bottom, 0.985 * cell_width / width, 0.985 * cell_height / height))
        _draw_slice(axes, view, index, segmentation, frame)
        if position == 0:
            _draw_sides(axes, frame)
    _draw_header(figure, title or volume.name, volume, frame, height)
    _draw_legend(figure, present, segmentation, view.colors, columns * cell_width, width, height)
    return figure


def shown_slices(segmentation: Segmentation, frame: SliceFrame, count: int) -> tuple[int, ...]:
    """Up to `count` stack indices, evenly spread over the labeled slices (over all slices if there are none)."""
    stack = frame.to_stack(segmentation.array)
    labeled = [index for index in range(len(stack)) if stack[index].any()]
    first, last = (labeled[0], labeled[-1]) if labeled else (0, len(stack) - 1)
    available = last - first + 1
    if available <= count:
        return tuple(range(first, last + 1))
    edges = np.linspace(first, last + 1, count + 1)
    return tuple(math.floor((low + high) / 2.0) for low, high in zip(edges[:-1], edges[1:]))


def outline_colors(labels: Sequence[Label]) -> dict[int, tuple[float, float, float]]:
    """Outline colors by label value that are distinguishable as thin lines on gray.

    A label keeps its own color unless that is too dark or too close to a previous one (as Slicer's colors of liver and
    both kidneys are); then it gets the color of a fixed palette that is farthest from all others.
    """
    chosen: dict[int, tuple[float, float, float]] = {}
    for label in labels:
        if max(label.color) >= _DARK and _distance(label.color, list(chosen.values())) >= _TOO_CLOSE:
            chosen[label.value] = label.color
    for label in labels:
        if label.value not in chosen:
            others = list(chosen.values())
            chosen[label.value] = max(_PALETTE, key=partial(_distance, others=others))
    return chosen


def _distance(color: tuple[float, float, float], others: Sequence[tuple[float, float, float]]) -> float:
    return min((math.dist(color, other) for other in others), default=2.0)


def side_letters(direction: Sequence[float]) -> str:
    """Patient sides that an LPS direction points toward, strongest first: "L", "PS", ..."""
    names = (("L", "R"), ("P", "A"), ("S", "I"))
    parts = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    letters = [names[axis][0 if direction[axis] > 0 else 1] for axis in parts if abs(direction[axis]) > 0.38]
    return "".join(letters[:2])


def _view(volume: Volume, segmentation: Segmentation, frame: SliceFrame) -> _View:
    image, labels = frame.to_stack(volume.array), frame.to_stack(segmentation.array)
    limits = display_limits(image, volume.modality)
    content = shown_part(image, labels, limits)
    row_mm, column_mm = frame.pixel_spacing_mm
    colors = outline_colors(tuple(segmentation.labels))
    return _View(image, labels, content[0], content[1], limits, row_mm / column_mm, colors)


def display_limits(image: np.ndarray, modality: str) -> tuple[float, float]:
    """The intensities shown as black and white."""
    if modality == "CT":
        return _CT_WINDOW_HU
    sample = image[:: max(1, len(image) // 32), ::2, ::2].astype(np.float32)
    above = sample[sample > sample.min()]
    low, high = np.percentile(above if above.size else sample, (1.0, 99.5))
    return float(low), float(max(high, low + 1e-6))


def shown_part(image: np.ndarray, labels: np.ndarray, limits: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns with tissue or labels in a sample of about 24 slices, plus a margin."""
    step = max(1, len(image) // 24)
    threshold = limits[0] + 0.1 * (limits[1] - limits[0])
    used = (image[::step] > threshold).mean(axis=0) > 0.04
    used |= (labels > 0).any(axis=0) if labels.size < 1 << 26 else (labels[::step] > 0).any(axis=0)
    ranges = []
    for axis in (1, 0):
        hits = np.flatnonzero(used.any(axis=axis))
        length = used.shape[1 - axis]
        if hits.size == 0:
            ranges.append(slice(0, length))
            continue
        margin = round(_MARGIN_PART * length)
        ranges.append(slice(max(0, int(hits[0]) - margin), min(length, int(hits[-1]) + 1 + margin)))
    return ranges[0], ranges[1]


def _cell_size(view: _View) -> tuple[float, float]:
    height = (view.rows.stop - view.rows.start) * view.aspect
    width = view.columns.stop - view.columns.start
    if width >= height:
        return _CELL_INCHES, max(_CELL_INCHES * height / width, 0.3 * _CELL_INCHES)
    return max(_CELL_INCHES * width / height, 0.3 * _CELL_INCHES), _CELL_INCHES


def _grid(count: int, view: _View) -> tuple[int, int]:
    """Columns and rows of the montage: about 4:3, in whole inches per cell."""
    width, height = _cell_size(view)
    columns = min(count, max(1, round(math.sqrt(count * 4.0 / 3.0 * height / width))))
    return columns, math.ceil(count / columns)


def _draw_slice(axes: Axes, view: _View, index: int, segmentation: Segmentation, frame: SliceFrame) -> None:
    image = view.image[index][view.rows, view.columns]
    labels = view.labels[index][view.rows, view.columns]
    axes.imshow(
        image, cmap="gray", vmin=view.limits[0], vmax=view.limits[1], aspect=view.aspect, interpolation="bilinear"
    )
    for label in segmentation.labels:
        mask = labels == label.value
        if mask.any():
            axes.contour(
                np.pad(mask, 1).astype(np.float32),
                levels=[0.5],
                colors=[view.colors[label.value]],
                linewidths=1.1,
                extent=(-1, mask.shape[1], -1, mask.shape[0]),
            )
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    axes.set_axis_off()
    number = frame.volume_slice_index(index)
    _text(axes, 0.02, 0.02, f"{'kji'[frame.axes[0]]} = {number}", "left", "bottom", 6.5)


def _draw_sides(axes: Axes, frame: SliceFrame) -> None:
    _, rows, columns = frame.directions
    _text(axes, 0.02, 0.5, side_letters([-part for part in columns]), "left", "center", 8.5)
    _text(axes, 0.98, 0.5, side_letters(columns), "right", "center", 8.5)
    _text(axes, 0.5, 0.98, side_letters([-part for part in rows]), "center", "top", 8.5)
    _text(axes, 0.5, 0.02, side_letters(rows), "center", "bottom", 8.5)


def _text(axes: Axes, x: float, y: float, text: str, horizontal: str, vertical: str, size: float) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        color="white",
        fontsize=size,
        ha=horizontal,
        va=vertical,
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )


def _draw_header(figure: Figure, title: str, volume: Volume, frame: SliceFrame, height: float) -> None:
    i, j, k = volume.geometry.spacing_mm
    figure.text(0.012, 1.0 - 0.16 / height, title, fontsize=11, weight="bold", va="center")
    figure.text(
        0.012,
        1.0 - 0.39 / height,
        f"voxels {i:.3g} x {j:.3g} x {k:.3g} mm, {frame.stack_shape[0]} slices along {'kji'[frame.axes[0]]}",
        fontsize=7.5,
        color="0.35",
        va="center",
    )


def _present_labels(segmentation: Segmentation) -> list[tuple[Label, float]]:
    """Labels with at least one voxel and their volumes in mL."""
    counts = np.zeros(256, dtype=np.int64)
    for plane in segmentation.array:
        counts += np.bincount(plane.ravel(), minlength=256)
    volume_ml = segmentation.geometry.voxel_volume_ml
    return [(label, counts[label.value] * volume_ml) for label in segmentation.labels if counts[label.value]]


def _draw_legend(
    figure: Figure,
    present: list[tuple[Label, float]],
    segmentation: Segmentation,
    colors: dict[int, tuple[float, float, float]],
    left: float,
    width: float,
    height: float,
) -> None:
    from matplotlib.patches import Rectangle

    x = (left + 0.15) / width
    top = height - _HEADER_INCHES - 0.14
    if not present:
        figure.text(x, top / height, "nothing was found", fontsize=8.5, va="center")
    for row, (label, volume_ml) in enumerate(present):
        y = (top - row * _LEGEND_ROW_INCHES) / height
        box = (x, y - 0.06 / height)
        figure.add_artist(
            Rectangle(box, 0.16 / width, 0.12 / height, facecolor=colors[label.value], edgecolor="0.2", linewidth=0.4)
        )
        figure.text(x + 0.26 / width, y, label.name, fontsize=8.5, va="center")
        figure.text(1.0 - 0.15 / width, y, f"{format_ml(volume_ml)} mL", fontsize=8.5, va="center", ha="right")
    absent = len(segmentation.labels) - len(present)
    if present and absent:
        y = (top - len(present) * _LEGEND_ROW_INCHES) / height
        figure.text(
            x, y, f"not found: {absent} of {len(segmentation.labels)} labels", fontsize=7, color="0.35", va="center"
        )


def format_ml(volume_ml: float) -> str:
    """Format a volume with a sensible number of digits: 1480, 63.5, 0.82."""
    if volume_ml >= 100.0:
        return f"{volume_ml:.0f}"
    return f"{volume_ml:.1f}" if volume_ml >= 1.0 else f"{volume_ml:.2f}"
