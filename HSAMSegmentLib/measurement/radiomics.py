"""Radiomics features of structures, computed by MIRP, which follows the IBSI definitions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.images.geometry import Geometry, same_grid
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.images.volume import Volume
from HSAMSegmentLib.labels.segmentation import Segmentation

if TYPE_CHECKING:
    import pandas

RADIOMICS_HINT = "Radiomics features need MIRP; install it with: pip install 'hsamsegment[radiomics]'"
_MARGIN = 3
_NO_SHEAR = 1e-4
_FIRST_FEATURE = "morph_volume"
_MODALITIES = {"CT": "ct", "MR": "mr"}
_BINS = {
    "CT": {"base_discretisation_method": "fixed_bin_size", "base_discretisation_bin_width": 25.0},
    "": {"base_discretisation_method": "fixed_bin_number", "base_discretisation_n_bins": 32},
}


def radiomics_features(
    segmentation: Segmentation, volume: Volume, structures: Sequence[str] = (), **settings: Any
) -> pandas.DataFrame:
    """Compute features of the structures that were found, on the voxels without resampling.

    Args:
        segmentation: the labels.
        volume: the scan on the same grid.
        structures: names to measure; default: all. A large structure takes minutes.
        settings: passed to `mirp.extract_features`, for example `new_spacing=1.0`. By default intensities are
            discretized into bins of 25 HU in CT, and into 32 bins otherwise.

    Returns:
        A row per structure, a column per feature, with MIRP's names.

    Raises:
        RequestError: if MIRP is not installed, if a name is unknown, if the grids differ, or if the slices are sheared
            (a tilted gantry), which MIRP does not support.
    """
    if find_spec("mirp") is None:
        raise RequestError(RADIOMICS_HINT)
    _check(segmentation, volume, structures)
    import pandas

    boxes = ndimage.find_objects(segmentation.array)
    wanted = [label for label in segmentation.labels if not structures or label.name in structures]
    tables = []
    for label in wanted:
        box = boxes[label.value - 1] if label.value <= len(boxes) else None
        if box is not None:
            table = _features(segmentation.array == label.value, box, volume, {**_bins(volume), **settings})
            table.insert(0, "structure", label.name)
            tables.append(table)
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame({"structure": []})


def _check(segmentation: Segmentation, volume: Volume, structures: Sequence[str]) -> None:
    unknown = set(structures) - {label.name for label in segmentation.labels}
    if unknown:
        names = ", ".join(label.name for label in segmentation.labels)
        raise RequestError(f"There is no structure {', '.join(sorted(unknown))}; there are {names}.")
    if not same_grid(segmentation.geometry, volume.geometry):
        raise RequestError("The labels and the scan are on different grids; radiomics features need the same one.")
    axes = volume.geometry.direction_matrix
    if np.abs(axes.T @ axes - np.eye(3)).max() > _NO_SHEAR:
        raise RequestError(
            "The slices of this scan are sheared (a tilted gantry); resample it before radiomics features are computed."
        )


def _bins(volume: Volume) -> dict[str, Any]:
    return _BINS.get(volume.modality, _BINS[""])


def _features(mask: np.ndarray, box: tuple[slice, ...], volume: Volume, settings: dict[str, Any]) -> pandas.DataFrame:
    import mirp

    wide = tuple(
        slice(max(0, part.start - _MARGIN), min(length, part.stop + _MARGIN)) for part, length in zip(box, mask.shape)
    )
    geometry = _part_of(volume.geometry, wide)
    with TemporaryDirectory() as folder, _quiet_mirp():
        image, region = Path(folder) / "image.nrrd", Path(folder) / "mask.nrrd"
        sitk.WriteImage(image_of(volume.array[wide].astype(np.float32), geometry), str(image))
        sitk.WriteImage(image_of(mask[wide].astype(np.uint8), geometry), str(region))
        modality = _MODALITIES.get(volume.modality, "generic")
        (table,) = mirp.extract_features(image=str(image), mask=str(region), image_modality=modality, **settings)
    return table.loc[:, _FIRST_FEATURE:]


def _part_of(geometry: Geometry, part: tuple[slice, ...]) -> Geometry:
    k, j, i = part
    x, y, z = (float(value) for value in (geometry.ijk_to_lps @ [i.start, j.start, k.start, 1.0])[:3])
    size = (i.stop - i.start, j.stop - j.start, k.stop - k.start)
    return Geometry(size, geometry.spacing_mm, (x, y, z), geometry.direction)


@contextmanager
def _quiet_mirp() -> Iterator[None]:
    """Silence MIRP's step-by-step output, but not its warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
