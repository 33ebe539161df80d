"""Connections by signal text for the stand-ins that are no Qt objects."""

from __future__ import annotations

from collections import defaultdict


class TextSignals:
    """`connect("startupCompleted()", function)` and `emit`."""

    def __init__(self):
        self._slots = defaultdict(list)

    def connect(self, signal, function):
        self._slots[signal].append(function)
        return True

    def disconnect(self, signal, function=None):
        self._slots[signal] = [slot for slot in self._slots[signal] if function is not None and slot != function]

    def emit(self, signal, *arguments):
        for slot in list(self._slots[signal]):
            slot(*arguments)
