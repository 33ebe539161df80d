"""Connections by signal text as PythonQt has them: `button.connect("clicked(bool)", function)`.

An unknown signature is an error, as it is in Slicer.
"""

from __future__ import annotations

import inspect
import re
import types

from PySide6 import QtCore

_SIGNATURE = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*$")
_original_connect = QtCore.QObject.connect
_original_disconnect = QtCore.QObject.disconnect
_original_getattribute = QtCore.QObject.__getattribute__


def install() -> None:
    """Teach all QObjects the text form; PySide6 looks `connect` up itself, so the lookup is what is replaced."""
    QtCore.QObject.__getattribute__ = _getattribute


def _getattribute(instance, name):
    if name == "connect":
        return types.MethodType(_connect, instance)
    if name == "disconnect":
        return types.MethodType(_disconnect, instance)
    return _original_getattribute(instance, name)


def _is_text_form(arguments) -> bool:
    return bool(arguments) and isinstance(arguments[0], str) and not arguments[0][:1].isdigit()


def _connect(instance, *arguments):
    if _is_text_form(arguments):
        text, function = arguments
        slot = _slot(function, _SIGNATURE.match(text).group(2))
        _signal(instance, text).connect(slot)
        _slots(instance).setdefault(text, []).append((function, slot))
        return True
    if arguments and isinstance(arguments[0], QtCore.QObject):  # the static form, which PySide6 uses itself
        return _original_connect(*arguments)
    return _original_connect(instance, *arguments)


def _slot(function, sent):
    """A slot that takes what the signal sends and passes on as much of it as the function takes, as PythonQt does.

    PySide6 hands a default argument (`clicked(bool)`) only to slots with a parameter that is not variadic.
    """
    count = len([item for item in (sent or "any").split(",") if sent != ""])
    most = min(count, _parameters(function))
    if count == 0:
        return lambda: function()
    if count == 1:
        return lambda first: function(*(first,)[:most])
    return lambda *arguments: function(*arguments[:most])


def _parameters(function) -> int:
    """How many positional arguments a function takes; many if it does not tell."""
    try:
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    except ValueError:
        return 99
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 99
    return sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds)


def _disconnect(instance, *arguments):
    if not _is_text_form(arguments):
        own = () if arguments and isinstance(arguments[0], QtCore.QObject) else (instance,)
        return _original_disconnect(*own, *arguments)
    text, wanted = arguments[0], arguments[1:]
    slots = _slots(instance).get(text, [])
    found = [pair for pair in slots if not wanted or pair[0] == wanted[0]]
    for pair in found:
        _signal(instance, text).disconnect(pair[1])
        slots.remove(pair)
    return bool(found)


def _slots(instance) -> dict:
    return instance.__dict__.setdefault("_connected_slots", {})


def _signal(instance, text: str):
    name, arguments = _SIGNATURE.match(text).groups()
    signal = getattr(instance, name, None)
    if not hasattr(signal, "connect"):
        raise ValueError(f"QObject::connect: no such signal {type(instance).__name__}::{text}")
    if arguments is not None and not _has_signature(instance, name, arguments):
        raise ValueError(f"QObject::connect: no such signal {type(instance).__name__}::{text}")
    return signal


def _has_signature(instance, name: str, arguments: str) -> bool:
    meta = instance.metaObject()
    known = [
        bytes(meta.method(index).methodSignature()).decode()
        for index in range(meta.methodCount())
        if bytes(meta.method(index).name()).decode() == name
    ]
    wanted = arguments.replace("const ", "").replace("&", "").replace(" ", "")
    if f"{name}({wanted})" in known or (wanted == "" and f"{name}(bool)" in known):
        return True
    return any("PyObject" in signature or "QVariant" in signature for signature in known)
