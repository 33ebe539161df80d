"""What a user reads goes through the application's translation, though most layers do not know the application."""

from __future__ import annotations

import ast
import errno

import pytest
from conftest import REPOSITORY

from HSAMSegmentLib.errors import RequestError
from HSAMSegmentLib.runtime import translation as wording
from HSAMSegmentLib.worker.runners import refuse_second_job
from HSAMSegmentLib.workflows.events import sentence_for, sentence_for_exit

LIBRARY = REPOSITORY / "HSAMSegmentLib"
TRANSLATED = (
    "workflows/events.py",
    "worker/fallback.py",
    "worker/runners.py",
    "slicer/nodes/batch.py",
    "slicer/nodes/segmentations/comparison.py",
    "slicer/nodes/segmentations/node_layers.py",
    "slicer/nodes/segmentations/segments.py",
    "slicer/nodes/sequences.py",
    "slicer/nodes/segment_session.py",
    "slicer/nodes/volumes.py",
)


@pytest.fixture
def asked():
    """A translation that brackets every text; the contexts and texts that it was asked for."""
    texts = []

    def translate(context, text):
        texts.append((context, text))
        return f"[{text}]"

    wording.install_translation(translate)
    yield texts
    wording.install_translation(lambda context, text: text)


def test_without_an_application_texts_stay_as_they_are_written():
    assert sentence_for(MemoryError()).startswith("The computer ran out of memory.")


def test_an_installed_translation_gets_the_text_before_its_values_and_the_context_that_slicer_extracts(asked):
    sentence = sentence_for(OSError(errno.ENOSPC, "No space left on device", "big.npy"))
    assert sentence == "[The disk is full (big.npy). Free some space and try again.]"
    assert asked == [("workflows.events", "The disk is full{place}. Free some space and try again.")]


def test_the_end_of_a_worker_and_a_second_job_are_told_in_the_user_s_language(asked):
    class Busy:
        is_running = True

    with pytest.raises(RequestError, match=r"^\[Another job is running"):
        refuse_second_job(Busy())
    assert sentence_for_exit(-9).startswith("[The worker process was ended from outside (signal 9, SIGKILL)")
    assert [context for context, _ in asked] == ["worker.runners", "workflows.events"]


def _is_sentence(node) -> bool:
    """Whether a text has words of its own, beside values that are filled in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    words = " ".join(texts)
    return " " in words.strip() and any(character.isalpha() for character in words)


def _sentences_of(tree) -> list[int]:
    """Lines on which a text is returned, or raised as an error, as it is written."""
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    raised = [
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        for argument in node.exc.args
    ]
    return [node.lineno for node in returned + raised if _is_sentence(node)]


@pytest.mark.parametrize("name", TRANSLATED)
def test_no_sentence_leaves_these_modules_untranslated(name):
    tree = ast.parse((LIBRARY / name).read_text(encoding="utf-8"))
    assert _sentences_of(tree) == []


def _stages() -> set[str]:
    """Every stage that is written as a plain text anywhere in the library."""
    found = set()
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            given = {"Progress": node.args[1:2], "ProgressTracker": [], "replace": []}.get(node.func.id)
            if given is None:
                continue
            given = given + [keyword.value for keyword in node.keywords if keyword.arg == "stage"]
            found |= {item.value for item in given if isinstance(item, ast.Constant) and item.value}
    return found


@pytest.mark.host
def test_every_stage_of_a_job_is_translated_where_it_is_shown(host, monkeypatch):
    from HSAMSegmentLib.slicer.panels.widgets import status_line

    monkeypatch.setattr(status_line, "_", lambda text: f"[{text}]")
    known = _stages()
    assert {"Reading the scan", "Segmenting slices", "Starting"} <= known
    assert [stage for stage in sorted(known) if status_line.shown_stage(stage) != f"[{stage}]"] == []
    assert status_line.shown_stage("Checking model.safetensors") == "Checking model.safetensors"


@pytest.mark.host
def test_the_engine_installs_the_translation_of_the_application(host):
    from slicer.i18n import translate

    from HSAMSegmentLib.slicer.panels.engine import Engine

    Engine().close()
    assert wording._translate is translate
    wording.install_translation(lambda context, text: text)
