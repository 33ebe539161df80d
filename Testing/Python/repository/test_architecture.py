"""The page on the architecture names files, functions and classes that exist."""

from __future__ import annotations

import ast
import re

from conftest import REPOSITORY

PAGE = (REPOSITORY / "Docs" / "architecture.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| [^|]+ \| `(HSAMSegmentLib/[\w/]+\.py)` \| `(\w+)` \|$", PAGE, flags=re.MULTILINE)


def names_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_every_step_of_a_walk_is_where_the_page_says():
    assert len(STEPS) > 30
    assert [step for step in STEPS if step[1] not in names_in(REPOSITORY / step[0])] == []


def test_every_class_that_the_page_names_exists():
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", PAGE))
    known = set().union(*(names_in(path) for path in (REPOSITORY / "HSAMSegmentLib").rglob("*.py")))
    assert named - known == set()
