"""Puts the top-level folder Resources into the wheel, inside of the package; all else is in pyproject.toml."""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["HSAMSegmentLib*"]), "HSAMSegmentLib.Resources"],
    package_dir={"HSAMSegmentLib.Resources": "Resources"},
    package_data={"HSAMSegmentLib.Resources": ["Models/*", "Terminologies/*"]},
)
