"""Hooks of mkdocs: pictures from outside of Docs, the reference of the command line, links that leave the site."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from HSAMSegmentLib.cli.main import build_parser

PICTURES = Path(__file__).resolve().parents[1] / "Resources" / "Screenshots"
API_PAGE = """# Python reference

What `import HSAMSegmentLib as hsam` offers. Examples are in [Python API](api.md).

::: HSAMSegmentLib.api
    options:
      show_root_heading: false
      show_root_toc_entry: false
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures and the pages that are made from the code."""
    for path in sorted(PICTURES.glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "command_line.md", content=command_line_page()))
    files.append(File.generated(config, "python_reference.md", content=API_PAGE))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point to the pictures of the site; the README has its own words for what `index.md` says."""
    markdown = markdown.replace("../Resources/Screenshots/", "pictures/")
    return re.sub(r"\.\./README\.md(#[\w-]+)?", "index.md", markdown)


def command_line_page() -> str:
    """The help of every command."""
    parser = build_parser()
    commands = next(item for item in parser._actions if isinstance(item, argparse._SubParsersAction))
    shown = {choice.dest for choice in commands._choices_actions}
    parts = ["# Command line", "", "```", parser.format_help().rstrip(), "```", ""]
    for name, command in commands.choices.items():
        if name in shown:
            parts += [f"## {name}", "", "```", command.format_help().rstrip(), "```", ""]
    return "\n".join(parts)
