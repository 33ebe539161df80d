"""Gives PySide6's classes properties as PythonQt has them: `button.text = "OK"`, `if box.checked:`."""

from __future__ import annotations

import threading

from PySide6 import QtCore

# Shiboken looks these virtual functions up on the instance; PythonQt has them as callables, too.
_LEFT_AS_METHODS = {"sizeHint", "minimumSizeHint"}
_active = threading.local()


class DualProperty:
    """Reads and writes a Qt property of an instance; on the class it is the original function."""

    def __init__(self, name, read, write, original):
        self.name, self._read, self._write, self.original = name, read, write, original

    def __get__(self, instance, owner=None):
        if instance is None:
            return self.original if self.original is not None else self
        running = _active.__dict__.setdefault("keys", set())
        key = (id(instance), self.name)
        if key in running:  # C++ asks whether Python overrides the getter that is running: it does not
            return None
        running.add(key)
        try:
            return self._read(instance)
        finally:
            running.discard(key)

    def __set__(self, instance, value):
        if self._write is None:
            raise AttributeError(f"property '{self.name}' of {type(instance).__name__} is not writable")
        self._write(instance, value)


def install(modules) -> None:
    """Patch all QObject classes of the given PySide6 modules, bases first."""
    classes = {
        item
        for module in modules
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, QtCore.QObject)
    }
    for item in sorted(classes, key=lambda item: (len(item.__mro__), item.__name__)):
        _patch(item)


def _patch(owner: type) -> None:
    meta = owner.staticMetaObject
    for index in range(meta.propertyCount()):
        description = meta.property(index)
        name = description.name()
        inherited = index < meta.propertyOffset() and name not in owner.__dict__
        if not inherited and name not in _LEFT_AS_METHODS:
            _install_property(owner, name, description)


def _install_property(owner: type, name: str, description) -> None:
    native = owner.__dict__.get(name)
    if type(native).__name__ not in ("method_descriptor", "PySideMetaFunction"):
        native = None
    current = getattr(owner, name, None)
    original = current.original if isinstance(current, DualProperty) else current
    write = _writer(owner, name, description.typeName() == "bool") if description.isWritable() else None
    setattr(owner, name, DualProperty(name, _reader(name, native), write, original))


def _reader(name: str, native):
    if native is not None:
        return native
    return lambda instance: QtCore.QObject.property(instance, name)


def _writer(owner: type, name: str, is_bool: bool):
    setter_name = f"set{name[0].upper()}{name[1:]}"
    convert = bool if is_bool else lambda value: value
    if hasattr(owner, setter_name):
        return lambda instance, value: getattr(instance, setter_name)(convert(value))
    return lambda instance, value: QtCore.QObject.setProperty(instance, name, convert(value))
