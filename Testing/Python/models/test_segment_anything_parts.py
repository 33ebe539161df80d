"""SAM's networks come from the segment-anything package without the package being run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
LOAD_AND_SAY_WHY_NOT = """
from HSAMSegmentLib.errors import HSAMSegmentError
from HSAMSegmentLib.models.encoders.segment_anything_parts import sam_part
try:
    print(sam_part("common", "LayerNorm2d").__name__)
except HSAMSegmentError as error:
    print(error)
"""


def run_python(code: str, first_on_path: Path = REPOSITORY) -> str:
    """What a fresh interpreter prints that finds packages in `first_on_path` before all others."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(first_on_path), str(REPOSITORY)])}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


def fake_package(folder: Path, modeling: str | None) -> Path:
    package = folder / "segment_anything"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the package was run')\n")
    if modeling is not None:
        (package / "modeling").mkdir()
        (package / "modeling" / "__init__.py").write_text(modeling)
    return folder


def test_neither_the_package_nor_torchvision_is_imported() -> None:
    code = LOAD_AND_SAY_WHY_NOT + "import sys\nprint(sorted({'segment_anything', 'torchvision'} & set(sys.modules)))"
    assert run_python(code).splitlines() == ["LayerNorm2d", "[]"]


def test_importing_our_helper_does_not_import_torch() -> None:
    code = "import sys, HSAMSegmentLib.models.encoders.segment_anything_parts\nprint('torch' in sys.modules)"
    assert run_python(code) == "False"


@pytest.mark.parametrize(
    ("modeling", "why"),
    [
        (None, "has no folder modeling"),
        ("import a_module_that_does_not_exist\n", "is damaged (No module named 'a_module_that_does_not_exist')"),
        ("def half_a_", "is damaged ("),
        ("", "has no modeling.common.LayerNorm2d"),
    ],
)
def test_a_damaged_package_is_named_in_one_sentence(tmp_path: Path, modeling: str | None, why: str) -> None:
    said = run_python(LOAD_AND_SAY_WHY_NOT, fake_package(tmp_path, modeling))
    assert why in said
    assert said.endswith("Install it with: pip install --no-deps segment-anything")


def test_a_missing_package_is_named_in_one_sentence(tmp_path: Path) -> None:
    without_site_packages = (
        f"import sys\nsys.path = [{str(REPOSITORY)!r}, *[p for p in sys.path if 'site-' not in p]]\n"
    )
    said = run_python(without_site_packages + LOAD_AND_SAY_WHY_NOT, tmp_path)
    assert said.startswith("The Python package 'segment-anything' is not installed")
