"""Colors as DICOM stores them: CIELab at D50 in three 16-bit numbers (PS3.3, C.10.7.1.1), from and to sRGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from HSAMSegmentLib.runtime.serialization import triple

_D50_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)
"""XYZ at D50 to linear sRGB, Bradford adapted (Lindbloom)."""
_WHITE = np.array([0.9642, 1.0, 0.8249])
_KNEE = 6 / 29


def srgb_of(stored: Sequence[float]) -> tuple[float, float, float]:
    """Red, green and blue, each 0 to 1, of a stored color; colors that sRGB does not have are clipped."""
    lightness, a, b = (stored[0] / 65535 * 100, stored[1] / 65535 * 255 - 128, stored[2] / 65535 * 255 - 128)
    y = (lightness + 16) / 116
    roots = np.array([y + a / 500, y, y - b / 200])
    xyz = _WHITE * np.where(roots > _KNEE, roots**3, 3 * _KNEE**2 * (roots - 4 / 29))
    linear = _D50_TO_SRGB @ xyz
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055)
    red, green, blue = np.clip(gamma, 0.0, 1.0)
    return (float(red), float(green), float(blue))


def cielab_of(color: Sequence[float]) -> tuple[float, float, float]:
    """Lightness 0 to 100, a* and b* -128 to 127, of a color whose red, green and blue are 0 to 1."""
    gamma = np.asarray(color, dtype=float)
    linear = np.where(gamma <= 0.04045, gamma / 12.92, ((gamma + 0.055) / 1.055) ** 2.4)
    xyz = np.linalg.solve(_D50_TO_SRGB, linear) / _WHITE
    x, y, z = np.where(xyz > _KNEE**3, np.cbrt(xyz), xyz / (3 * _KNEE**2) + 4 / 29)
    lab = (116 * y - 16, 500 * (x - y), 200 * (y - z))
    low, high = (0.0, -128.0, -128.0), (100.0, 127.0, 127.0)
    return triple(float(np.clip(part, least, most)) for part, least, most in zip(lab, low, high))
