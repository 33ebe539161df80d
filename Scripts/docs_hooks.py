"""MkDocs hooks: pages generated from the code, and files of the repository outside Docs.

The pages in `Docs` are also read on GitHub; their links to files outside `Docs` are rewritten to links that work on the
site.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

WEB = "https://github.com/HSAMSegment/HSAMSegment/blob/main/"
PICTURES = "pictures/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures, the project pages, and the references."""
    from mkdocs.structure.files import File

    for picture in sorted((REPOSITORY / "Resources" / "Screenshots").glob("*.png")):
        files.append(File.generated(config, PICTURES + picture.name, abs_src_path=str(picture)))
    pages = {
        "contributing.md": _outside("CONTRIBUTING.md"),
        "changelog.md": _outside("CHANGELOG.md"),
        "reference_cli.md": command_line_page(),
        "reference_api.md": api_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Rewrite links to files outside `Docs` to links that work on the site."""
    markdown = markdown.replace("](../Resources/Screenshots/", f"]({PICTURES}")
    markdown = re.sub(r"\]\(notebooks/", f"]({WEB}Docs/notebooks/", markdown)
    return re.sub(r"\]\(\.\./([^)]+)\)", rf"]({WEB}\1)", markdown)


def _outside(name: str) -> str:
    """A page from the repository's root, with links relative to `Docs`."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return re.sub(r"\]\(Docs/", "](", text)


def command_line_page() -> str:
    """Every command with its options, as in `--help`."""
    from HSAMSegmentLib.cli.main import build_parser

    parser = build_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    hidden = {action.dest for action in commands._choices_actions if action.help == argparse.SUPPRESS}
    shown = {action.dest for action in commands._choices_actions} - hidden
    parts = [
        "# Command line",
        "Made from the program itself: `hsam-segment COMMAND --help` shows the same.",
        _help(parser),
    ]
    for name, command in commands.choices.items():
        if name in shown:
            parts += [f"## {name}", _help(command)]
    return "\n\n".join(parts)


def _help(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_help().rstrip()}\n```"


def api_page() -> str:
    """The public names of the package, documented by their docstrings."""
    import HSAMSegmentLib

    names = [name for name in HSAMSegmentLib.__all__ if not name.startswith("_")]
    functions = sorted(name for name in names if name[0].islower())
    classes = sorted(set(names) - set(functions))
    parts = ["# Python API, every function", "`import HSAMSegmentLib as hsam`; made from the docstrings."]
    for name in functions + classes:
        parts.append(f"::: {getattr(HSAMSegmentLib, name).__module__}.{name}")
    return "\n\n".join(parts)
