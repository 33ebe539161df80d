"""A data set of phantoms in the layout of the development scans, so that a fresh clone tests all that they test.

Abdomens are those of `phantom.abdomen_phantom`; hearts and left atria are plain solids. They show that files, places,
names and training work. How good a model is on patients, only real scans show.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from HSAMSegmentLib.images.geometry import Geometry
from HSAMSegmentLib.images.sitk_images import image_of
from HSAMSegmentLib.phantom import abdomen_phantom, phantom_geometry

ABDOMENS = ("02", "03", "05", "20", "34", "39")
HEARTS = ("01", "04", "11", "19", "22", "25", "31")
ATRIA = (
    "06SR5RBREL16DQ6M8LWS",
    "0RZDK210BSMWAA6467LU",
    "1D7CUD1955YZPGK8XHJX",
    "1MHBF3G6DCPWHSKG7XCP",
    "3DA0T2V6JJ2NLUAV6FWM",
    "57SGAJMLCTCH92QUA0EE",
    "5UB5KFD2PK38Z4LS6W80",
    "8M99G0JLAXG9GLPV0O8G",
    "9DQYTIU00I4JC0OEOKQQ",
    "BNK95S2SJXEGSW7VAKYU",
)


def write_phantom_data(folder: Path, ct_folder: Path) -> Path:
    """Write the data set into an empty folder; the CT scans of the repository are copied into it."""
    for seed, name in enumerate(ABDOMENS):
        volume, labels = abdomen_phantom(seed=seed, geometry=phantom_geometry((256, 256, 40), (1.25, 1.25, 7.7)))
        _write(folder / "chaos_t2", f"chaos_t2_{name}", volume.array, labels.array, volume.geometry)
    for seed, name in enumerate(HEARTS):
        _write(folder / "cmr_bssfp", f"cmr_bssfp_{name}", *_heart(seed))
    for seed, name in enumerate(ATRIA):
        _write(folder / "la_lge", f"la_{name}", *_atrium(seed))
    _index(folder / "chaos_t2", {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"})
    heart = {1: "left ventricular myocardium", 2: "left ventricle", 3: "right ventricle"}
    _index(folder / "cmr_bssfp", heart)
    _index(folder / "la_lge", {1: "left atrium"})
    shutil.copytree(ct_folder, folder / "ct_totalsegmentator")
    return folder


def _write(folder: Path, name: str, scan: np.ndarray, labels: np.ndarray, geometry: Geometry) -> None:
    for part, array in (("images", scan.astype(np.int16)), ("labels", labels.astype(np.uint8))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image_of(array, geometry), str(folder / part / f"{name}.nii.gz"), True, 1)


def _index(folder: Path, labels: dict[int, str]) -> None:
    names = sorted(path.name[: -len(".nii.gz")] for path in (folder / "images").iterdir())
    cases = [{"id": name, "image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"} for name in names]
    content = {"labels": {"0": "background", **{str(value): name for value, name in labels.items()}}, "cases": cases}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def _grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> list[np.ndarray]:
    """Distances in mm from the middle along k, j, i."""
    axes = ((np.arange(length) - (length - 1) / 2) * step for length, step in zip(shape, spacing[::-1]))
    return list(np.meshgrid(*axes, indexing="ij"))


def _scan(labels: np.ndarray, levels: dict[int, float], body: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    array = np.where(body, 180.0, 0.0)
    for value, level in levels.items():
        array[labels == value] = level
    array = ndimage.gaussian_filter(array, (0.0, 1.0, 1.0)) * generator.uniform(0.9, 1.1)
    return np.clip(array + generator.normal(0.0, 12.0, array.shape), 0, 2000)


def _heart(seed: int) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """A ring of muscle around a bright pool and a bright chamber beside it, in oblique slices."""
    generator = np.random.default_rng(100 + seed)
    shape, spacing = (17, 256, 256), (1.25, 1.25, 7.99)
    k, j, i = _grid(shape, spacing)
    taper = np.clip(1.0 - (k / 75.0) ** 2, 0.05, 1.0)
    radius = np.hypot(j - generator.uniform(-6, 6), i - 12)
    labels = np.zeros(shape, dtype=np.uint8)
    beside = np.hypot((j + 4) / 1.3, i + 32) < 26 * taper
    inside = np.abs(k) < 40
    labels[beside & inside] = 3
    labels[(radius < 34 * taper) & inside] = 1
    labels[(radius < 24 * taper) & inside] = 2
    body = np.hypot(j / 110.0, i / 140.0) < 1.0
    tilt, turn = np.radians(35.0 + seed), np.radians(25.0)
    first = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    second = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    geometry = Geometry(shape[::-1], spacing, (-120.0, -90.0, 40.0), tuple((first @ second).ravel().tolist()))
    return _scan(labels, {1: 260.0, 2: 900.0, 3: 850.0}, body, seed), labels, geometry


def _atrium(seed: int) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """A bright ellipsoid with two tubes in thin isotropic slices."""
    generator = np.random.default_rng(200 + seed)
    shape, spacing = (88, 140, 183), (0.625, 0.625, 0.625)
    k, j, i = _grid(shape, spacing)
    sizes = generator.uniform((14, 18, 22), (18, 24, 28))
    labels = (k / sizes[0]) ** 2 + (j / sizes[1]) ** 2 + (i / sizes[2]) ** 2 < 1.0
    labels |= (np.hypot(k, j - 8) < 5) & (np.abs(i) < sizes[2] + 10)
    body = np.ones(shape, dtype=bool)
    geometry = Geometry(shape[::-1], spacing, (0.0, 0.0, 0.0))
    return _scan(labels.astype(np.uint8), {1: 700.0}, body, seed), labels.astype(np.uint8), geometry
