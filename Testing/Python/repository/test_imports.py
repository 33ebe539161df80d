"""No module of the library imports another one that imports it back, however long the way."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

grimp = pytest.importorskip("grimp", reason="import-linter, which brings grimp, is not installed")


def imports_of(package: str) -> dict[str, set[str]]:
    """Every module with what it imports, at the top or inside of a function; not what only a type checker imports."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


@pytest.mark.parametrize("package", ["HSAMSegmentLib", "recipes"])
def test_imports_go_in_no_circle(package):
    graph = imports_of(package)
    assert len(graph) > 3
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_a_circle_would_be_noticed():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
