"""Slicer 5.8 runs Python 3.9: every file must be readable for it."""

from __future__ import annotations

import ast
import subprocess

import pytest
from conftest import REPOSITORY


def tracked_python_files():
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return sorted(
            path
            for folder in ("HSAMSegment", "HSAMSegmentLib", "Scripts", "Testing")
            for path in (REPOSITORY / folder).rglob("*.py")
        )
    return [REPOSITORY / name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]


def evaluated_at_run_time(tree):
    """All nodes except annotations, which `from __future__ import annotations` leaves unevaluated."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            pending.extend(
                item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST)
            )


def is_union_of_types(node):
    """`int | None` and the like outside of annotations: a TypeError in Python 3.9."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)):
        return False
    types = {"int", "str", "float", "bool", "bytes", "dict", "list", "tuple", "set", "Path"}
    sides = (node.left, node.right)
    return any(
        (isinstance(side, ast.Constant) and side.value is None) or (isinstance(side, ast.Name) and side.id in types)
        for side in sides
    )


def test_every_file_is_python_3_9():
    found = {}
    for path in tracked_python_files():
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
        unions = [node.lineno for node in evaluated_at_run_time(tree) if is_union_of_types(node)]
        if unions:
            found[str(path.relative_to(REPOSITORY))] = unions
    assert found == {}, "a union of types is evaluated in these lines"


def test_newer_syntax_would_be_noticed():
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1:\n        pass\n", feature_version=(3, 9))
    assert any(is_union_of_types(node) for node in evaluated_at_run_time(ast.parse("Number = int | None")))
    assert not any(is_union_of_types(node) for node in evaluated_at_run_time(ast.parse("x: int | None = 3")))
