from __future__ import annotations

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "HSAMSegment"


def script(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "Scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_of_the_library_is_installed_with_the_extension():
    lists = script("update_file_lists")
    hint = "run: python Scripts/update_file_lists.py"
    assert lists.TARGET.read_text(encoding="utf-8") == lists.cmake_text(), hint


def test_the_terminology_holds_our_structures():
    writer = script("write_terminology")
    hint = "run: python Scripts/write_terminology.py"
    assert writer.TARGET.read_text(encoding="utf-8") == writer.terminology_text(), hint


def test_every_file_of_the_module_is_installed_with_the_extension():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "HSAMSegment")
    listed = set(re.findall(r"^\s+((?:Resources/\S+|\S+\.py))$", text, flags=re.MULTILINE))
    built_from = {"Resources/Icons/HSAMSegment.svg"}  # the drawing that the icon was rendered from
    suffixes = (".py", ".png", ".ui", ".svg")
    files = {path.relative_to(MODULE).as_posix() for path in MODULE.rglob("*") if path.suffix in suffixes}
    assert listed == files - built_from


def test_the_extension_and_its_catalog_entries_agree():
    cmake = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    entry = json.loads((REPOSITORY / "HSAMSegment.json").read_text(encoding="utf-8"))
    old_entry = dict(
        (line.split(" ", 1) + [""])[:2]
        for line in (REPOSITORY / "HSAMSegment.s4ext").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    assert re.search(r"^project\((\w+)\)", cmake, flags=re.MULTILINE).group(1) == "HSAMSegment"
    assert f'set(EXTENSION_CATEGORY "{entry["category"]}")' in cmake
    assert f'set(EXTENSION_DEPENDS "{" ".join(entry["build_dependencies"])}")' in cmake
    assert entry["scm_url"] == old_entry["scmurl"]
    assert old_entry["depends"].split() == entry["build_dependencies"]
    assert old_entry["category"] == entry["category"]


def test_the_icon_is_a_png_of_128_pixels():
    data = (MODULE / "Resources" / "Icons" / "HSAMSegment.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (128, 128)


FORMS = sorted((MODULE / "Resources" / "UI").glob("*.ui"))


def test_every_widget_that_the_panel_uses_is_in_one_of_its_forms():
    names = {widget.get("name") for form in FORMS for widget in ElementTree.parse(form).iter("widget")}
    used = set()
    for file in (REPOSITORY / "HSAMSegmentLib" / "slicer" / "panels").rglob("*.py"):
        used |= set(re.findall(r"\bui\.(\w+)", file.read_text(encoding="utf-8")))
    assert used
    assert used <= names


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_custom_widgets_of_a_form_are_declared(form):
    tree = ElementTree.parse(form)
    declared = {item.findtext("class") for item in tree.iter("customwidget")}
    used = {widget.get("class") for widget in tree.iter("widget") if not widget.get("class").startswith("Q")}
    assert used == declared
