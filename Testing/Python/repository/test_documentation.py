"""The pages in `Docs` and the README: links lead somewhere, commands are right, and what they quote is what is said."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

import HSAMSegmentLib

PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "Docs").glob("*.md")))
TROUBLESHOOTING = REPOSITORY / "Docs" / "troubleshooting.md"
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|root|home/\w+|tmp|opt/\w+|Users/\w+)/")
LARGEST_PICTURE_BYTES = 250_000


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def links(page):
    return re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))


def anchors(page):
    """Those that the page names itself, and those that GitHub makes of headings."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r'<a id="([^"]+)"></a>', text))
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return named | {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def fenced_lines(page):
    """Lines in fenced blocks, those inside of a list included, continued ones as one."""
    blocks = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def program_lines():
    """Every command line of the program, in fenced blocks and in running text."""
    lines = [line for page in PAGES for line in fenced_lines(page)]
    found = {line for line in lines if line.startswith("hsam-segment ") and "-->" not in line}  # arrows: a drawing
    for page in PAGES:
        spans = re.findall(r"`(hsam-segment [^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
        found |= set(spans)
    return sorted(found)


def sentences_of_the_program():
    """All texts in the code of the library, placeholders as a character that no page has."""
    texts = []
    folders = (REPOSITORY / "HSAMSegmentLib").rglob("*.py")
    for path in folders:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{[^}]*\}", "\0", node.value))
    return texts


def quoted_sentences():
    """What the page on troubleshooting quotes: in bold at the start of an item, or in the first column of a table."""
    text = TROUBLESHOOTING.read_text(encoding="utf-8")
    bold = re.findall(r"\*\*`([^`]+)`\*\*", text)
    cells = [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| (`[^|]*) \|", text, flags=re.MULTILINE)]
    return sorted({*bold, *(quote for row in cells for quote in row)})


def is_said(quote, texts):
    """Whether one text of the program has all pieces between the dots, in this order."""
    pieces = [re.escape(piece.strip().strip("'")) for piece in quote.split("...") if piece.strip(" '")]
    pattern = re.compile(".*".join(pieces), flags=re.DOTALL)
    return any(pattern.search(text) for text in texts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_of_the_repository_leads_somewhere(page):
    inside = [link for link in links(page) if not re.match(r"[a-z]+:", link)]
    broken = []
    for link in inside:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_readme_leads_to_every_page():
    linked = {link.partition("#")[0] for link in links(REPOSITORY / "README.md")}
    assert {f"Docs/{page.name}" for page in PAGES[1:]} <= linked


@pytest.mark.parametrize("line", program_lines())
def test_a_command_in_the_documents_is_one_that_the_program_takes(line):
    from HSAMSegmentLib.cli.main import build_parser

    words = shlex.split(line.replace("COMMAND", "segment"), comments=True)[1:]
    if all(re.fullmatch("[a-z]+", word) for word in words):  # only named, without what it works on
        words.append("--help")
    if words[-1] == "--help":
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_command(words)
    else:
        build_parser().parse_command(words)


def test_a_command_with_an_unknown_option_would_be_noticed():
    from HSAMSegmentLib.cli.main import build_parser
    from HSAMSegmentLib.errors import RequestError

    with pytest.raises(RequestError):
        build_parser().parse_command(["segment", "scan.nii.gz", "-o", "organs.seg.nrrd", "--organ", "liver"])


def test_the_scripts_that_the_documents_call_exist():
    called = {
        word
        for page in PAGES
        for line in fenced_lines(page)
        for word in re.findall(r"(?:Scripts|Testing)/[\w/]+\.py", line)
    }
    assert called
    assert not [name for name in called if not (REPOSITORY / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_no_folder_of_somebodys_machine(page):
    assert not MACHINE_PATHS.search(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("quote", quoted_sentences())
def test_the_page_on_troubleshooting_quotes_what_the_program_says(quote, texts):
    assert is_said(quote, texts)


@pytest.fixture(scope="module")
def texts():
    return sentences_of_the_program()


def test_a_sentence_that_nobody_says_would_be_noticed(texts):
    assert not is_said("The disk is fuller than ... ever", texts)


def test_the_hashes_on_the_offline_page_are_those_of_the_catalog():
    from HSAMSegmentLib.weights.catalog import load_catalog

    text = (REPOSITORY / "Docs" / "offline.md").read_text(encoding="utf-8")
    known = [entry for entry in load_catalog() if entry.sha256]
    assert known
    for entry in known:
        assert f"{entry.sha256}  {entry.file_name}" in text
        assert f"| `{entry.id}` | `{entry.file_name}` | {entry.size_bytes} | <{entry.urls[0]}> |" in text


def test_every_model_and_encoder_of_the_catalog_is_on_the_offline_page():
    from HSAMSegmentLib.weights.catalog import load_catalog

    text = (REPOSITORY / "Docs" / "offline.md").read_text(encoding="utf-8")
    assert not [entry.id for entry in load_catalog() if f"`{entry.id}`" not in text]


def test_the_pictures_are_small_and_all_are_shown_somewhere():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith(".png")}
    pictures = set((REPOSITORY / "Resources" / "Screenshots").glob("*.png"))
    assert pictures <= shown
    assert not [path.name for path in pictures if path.stat().st_size > LARGEST_PICTURE_BYTES]


def fenced(page, language):
    """The blocks of a language, without their indentation."""
    pattern = rf"^( *)```{language}\n(.*?)^ *```"
    found = re.findall(pattern, page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_the_entry_for_the_catalog_is_one():
    from HSAMSegmentLib.weights.catalog import parse_catalog

    (example,) = fenced(REPOSITORY / "Docs" / "model_makers.md", "json")
    (entry,) = parse_catalog(f'{{"schema_version": 1, "entries": [{example}]}}')
    assert entry.organs == ("left atrium",)


def test_the_program_that_completes_a_description_runs(tmp_path):
    from HSAMSegmentLib.weights.bundle import read_manifest, read_shapes
    from HSAMSegmentLib.weights.resources import builtin_models_folder

    (program,) = fenced(REPOSITORY / "Docs" / "model_makers.md", "python")
    given = tmp_path / "my_organs.safetensors"
    shutil.copy(builtin_models_folder() / "left-atrium-lge.safetensors", given)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    made = tmp_path / "left-atrium-my-hospital.safetensors"
    assert read_manifest(made).title == "Left atrium, our protocol"
    assert read_manifest(made).architecture == read_manifest(given).architecture
    assert read_shapes(made) == read_shapes(given)


def test_the_page_for_model_makers_has_every_field_of_the_manifest():
    from dataclasses import fields

    from HSAMSegmentLib.models.specification import Architecture
    from HSAMSegmentLib.preprocess.rules import SliceRule
    from HSAMSegmentLib.weights.manifest import Manifest

    text = (REPOSITORY / "Docs" / "model_makers.md").read_text(encoding="utf-8")
    names = {item.name for kind in (Manifest, Architecture, SliceRule) for item in fields(kind)}
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_the_references_of_the_site_have_every_public_name_and_every_command():
    spec = importlib.util.spec_from_file_location("docs_hooks", REPOSITORY / "Scripts" / "docs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    documented = re.findall(r"^::: (\S+)\.(\w+)$", hooks.api_page(), flags=re.MULTILINE)
    assert {name for _, name in documented} == {name for name in HSAMSegmentLib.__all__ if name[0] != "_"}
    for module, name in documented:
        assert getattr(importlib.import_module(module), name) is getattr(HSAMSegmentLib, name)
    assert {"segment", "finetune", "doctor"} <= set(re.findall(r"^## (\S+)$", hooks.command_line_page(), re.MULTILINE))
