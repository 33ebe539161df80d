"""Convert labels to another format, for example a corrected segmentation to a DICOM Segmentation of its scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.export.formats import format_of
from HSAMSegmentLib.export.source_images import Origin
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.io.volume_files import read_volume
from HSAMSegmentLib.labels.grids import resample_labels
from HSAMSegmentLib.labels.segmentation import Segmentation
from HSAMSegmentLib.labels.segmentation_files import read_segmentation
from HSAMSegmentLib.measurement.scan import measure_scan
from HSAMSegmentLib.measurement.table import check_table_path, table_rows, write_table
from HSAMSegmentLib.runtime.atomic_files import check_outputs


@dataclass(frozen=True)
class ConvertRequest:
    """Write labels in another format, measure them, or both.

    Attributes:
        labels: file of the labels.
        output: file to write, or None.
        scan: file or DICOM folder of the scan, or None. The labels are resampled to its grid; DICOM formats and
            intensities need it.
        series: DICOM series in a folder; "" for the only one.
        format: name of the output format; "" for that of the suffix.
        statistics: table to write, or None.
        names: names of label map values; None for the names in the file.
        overwrite: replace existing files.
    """

    labels: Path
    output: Path | None = None
    scan: Path | None = None
    series: str = ""
    format: str = ""
    statistics: Path | None = None
    names: Mapping[int, str] | None = None
    overwrite: bool = False


def convert_labels(request: ConvertRequest) -> Segmentation:
    """Convert, and return the written files.

    Raises:
        RequestError: if there is nothing to write, the format is unknown, or a required package is missing.
        VolumeError: if labels or scan cannot be read, or do not belong together.
        OutputError: if a file exists and may not be replaced, or cannot be written; if DICOM images are needed and the
            scan has none.
    """
    if request.output is None and request.statistics is None:
        raise RequestError("There is nothing to do; name a file to write, or one for the statistics.")
    chosen = None if request.output is None else format_of(request.output, request.format)
    if request.statistics is not None:
        check_table_path(request.statistics)
    outputs = [request.statistics, *(chosen.files(request.output) if chosen and request.output else ())]
    check_outputs(outputs, overwrite=request.overwrite, source=request.labels)
    if chosen is not None:
        chosen.require()
    volume = None if request.scan is None else read_volume(request.scan, series=request.series or None)
    labels = read_on_grid(request.labels, volume, request.names)
    if chosen is not None and request.output is not None:
        origin = Origin(() if volume is None else volume.dicom_files)
        chosen.check(request.output, labels.geometry, origin)
        chosen.write(labels, request.output, origin, request.overwrite)
    if request.statistics is not None:
        rows = table_rows(labels.name if volume is None else volume.name, measure_scan(labels, volume))
        write_table(rows, request.statistics, overwrite=request.overwrite)
    return labels


def read_on_grid(path: Path, volume: Volume | None, names: Mapping[int, str] | None = None) -> Segmentation:
    """Read labels from a file, on the grid of their scan if given.

    Raises:
        VolumeError: if they cannot be read, or have no voxel inside the scan.
    """
    if volume is None:
        return read_segmentation(path, names=names)
    return resample_labels(read_segmentation(path, names=names, grid=volume.geometry), volume.geometry)
