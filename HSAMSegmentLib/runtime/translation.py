"""Translation of user messages, for layers that do not know the application.

The panel installs its translation here. Before that, on the command line, and in a worker process, texts are left
untranslated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

Translate = Callable[[str, str], str]


def _as_written(context: str, text: str) -> str:
    return text


_translate: Translate = _as_written


def install_translation(translate: Translate) -> None:
    """Install a function from a context and a text to the translated text; in Slicer `slicer.i18n.translate`."""
    global _translate
    _translate = translate


def tr(text: str) -> str:
    """Translate a text of the calling module; values are filled in afterwards with `str.format`.

    The context is the one that Slicer's text extraction assigns to a Python file: its folder and its name.
    """
    file = Path(sys._getframe(1).f_code.co_filename)
    return _translate(f"{file.parent.name}.{file.stem}", text)
