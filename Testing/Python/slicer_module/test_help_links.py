"""Every failure leads to a section of the page on troubleshooting that exists."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.host
PAGE = REPOSITORY / "Docs" / "troubleshooting.md"
WITHOUT_ADVICE = {"HSAMSegmentError", "CancelledError"}
"""The base, which a caller wraps around a sentence of another error, and the user's own wish."""


@pytest.fixture(scope="module")
def anchors():
    return set(re.findall(r'<a id="([^"]+)"></a>', PAGE.read_text(encoding="utf-8")))


def errors_of_the_library():
    """Names of all classes of errors that carry a sentence for the user of the panel; the service has its own page."""
    import HSAMSegmentLib
    from HSAMSegmentLib.errors import HSAMSegmentError

    for module in pkgutil.walk_packages(HSAMSegmentLib.__path__, "HSAMSegmentLib."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = set(), [HSAMSegmentError]
    while waiting:
        kind = waiting.pop()
        if not kind.__module__.startswith("HSAMSegmentLib.service."):
            found.add(kind.__name__)
        waiting += kind.__subclasses__()
    return found


def test_every_anchor_is_on_the_page(host, anchors):
    from HSAMSegmentLib.slicer.panels.widgets.status_line import ANCHORS, UNEXPECTED

    assert {*ANCHORS.values(), UNEXPECTED} <= anchors


def test_every_error_of_the_library_has_a_section(host):
    from HSAMSegmentLib.slicer.panels.widgets.status_line import ANCHORS

    assert errors_of_the_library() - WITHOUT_ADVICE <= set(ANCHORS)


def test_what_becomes_of_a_worker_has_a_section(host):
    from HSAMSegmentLib.slicer.panels.widgets.status_line import UNEXPECTED, help_address
    from HSAMSegmentLib.worker.process_runner import NEVER_READY, WorkerNotStartedError

    for name in (NEVER_READY, "WorkerDied", WorkerNotStartedError.__name__):
        assert not help_address(name).endswith(f"#{UNEXPECTED}")


def test_an_error_that_nobody_knows_leads_to_how_to_report_it(host):
    from HSAMSegmentLib.slicer.panels.widgets.status_line import help_address

    assert help_address("ZeroDivisionError").endswith("troubleshooting.md#unexpected")


def test_the_page_is_also_a_file_that_is_installed_with_the_extension(host):
    from urllib.request import url2pathname

    from HSAMSegmentLib.slicer.panels.widgets.status_line import help_link

    (address,) = re.findall(r'"file:(?://)?([^"]+)"', help_link("OutputError"))
    assert Path(url2pathname(address)).samefile(PAGE)
    listed = (REPOSITORY / "HSAMSegment" / "LibraryFiles.cmake").read_text(encoding="utf-8").split()
    assert "Docs/troubleshooting.md" in listed


def test_a_failure_shows_the_link_and_the_next_sentence_hides_it(host):
    import qt

    from HSAMSegmentLib.slicer.panels.widgets.status_line import StatusLine
    from HSAMSegmentLib.workflows.events import Failed

    label, bar, button, link = qt.QLabel(), qt.QProgressBar(), qt.QPushButton(), qt.QLabel()
    status = StatusLine(label, bar, button, link, None)
    status.fail(Failed("The disk is full. Free some space and try again.", error="OutputError"))
    assert link.visible
    assert 'href="https://' in link.text
    assert "#output" in link.text
    status.say("Done.")
    assert not link.visible


@pytest.mark.parametrize("form", ["HSAMSegment", "HSAMSegmentFinetune", "HSAMSegmentCompare", "HSAMSegmentBatch"])
def test_the_label_of_every_form_opens_the_link(host, form):
    import slicer

    widget = slicer.util.loadUI(str(REPOSITORY / "HSAMSegment" / "Resources" / "UI" / f"{form}.ui"))
    ui = slicer.util.childWidgetVariables(widget)
    label = ui.finetuneHelpLabel if form.endswith("Finetune") else ui.helpLabel
    assert label.openExternalLinks
