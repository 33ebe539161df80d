"""What Qt 6 and Python 3.12 no longer have must not be in what Slicer runs."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import REPOSITORY

SOURCES = sorted((*(REPOSITORY / "HSAMSegment").glob("*.py"), *(REPOSITORY / "HSAMSegmentLib").rglob("*.py")))
FORMS = sorted((REPOSITORY / "HSAMSegment" / "Resources" / "UI").glob("*.ui"))
GONE_MODULES = {"imp", "distutils", "asynchat", "asyncore", "smtpd", "pkg_resources"}
GONE_FROM_QT = {
    *("QRegExp", "QDesktopWidget", "QTextCodec", "QStringRef", "QLinkedList", "QMatrix", "QGLWidget", "QSignalMapper"),
    *("exec_", "setMargin", "fromHtml", "background_role", "AA_EnableHighDpiScaling", "AA_UseHighDpiPixmaps"),
    *("AA_DisableHighDpiScaling", "MidButton", "setWeight", "setTabStopWidth", "SystemLocaleShortDate"),
}
SIGNAL_OF_QT_5 = re.compile(r'"(currentIndexChanged|activated|highlighted|buttonClicked)\(Q\w+\)"')


def names_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name.split(".")[0] for item in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_source_uses_nothing_that_qt_6_or_python_3_12_dropped(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert GONE_MODULES & set(imports_of(tree)) == set()
    if "import qt" in text:
        assert GONE_FROM_QT & set(names_in(tree)) == set()
        assert SIGNAL_OF_QT_5.search(text) is None


def test_the_test_sees_what_it_looks_for():
    tree = ast.parse("import imp\nfrom distutils import version\ndialog.exec_()\nqt.QRegExp()")
    assert set(imports_of(tree)) == {"imp", "distutils"}
    assert GONE_FROM_QT & set(names_in(tree)) == {"exec_", "QRegExp"}
    assert SIGNAL_OF_QT_5.search('combo.connect("currentIndexChanged(QString)", f)')


def names_of_qt(tree):
    """Every `qt.Class.Name` of a source, as ("Class", "Name")."""
    for node in ast.walk(tree):
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if names and isinstance(node, ast.Name) and node.id == "qt":
            yield tuple(reversed(names))


def test_every_class_and_enumeration_that_a_source_names_is_known_to_qt_6(host):
    import qt

    named = {name for path in SOURCES for name in names_of_qt(ast.parse(path.read_text(encoding="utf-8")))}
    assert ("QHeaderView", "Stretch") in named
    unknown = set()
    for name in named:
        owner = qt
        for part in name:
            owner = getattr(owner, part, None)
        if owner is None:
            unknown.add(".".join(name))
    assert unknown == set()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_enumerations_of_a_form_are_known_to_qt_6(host, form):
    import qt

    for text in re.findall(r"<(?:enum|set)>(.*?)</(?:enum|set)>", form.read_text(encoding="utf-8")):
        for value in text.split("|"):
            owner, name = value.split("::")
            assert hasattr(getattr(qt, owner), name), f"{form.name}: {value}"
