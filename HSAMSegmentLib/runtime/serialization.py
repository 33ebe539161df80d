"""Convert dataclasses to plain JSON values and back, guided by their type hints.

One pair of functions serves everything that crosses a process boundary: requests, events and results. Hints are read
from the source of the class, so that `X | None` also works on Python 3.9, which cannot evaluate it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin

Target = TypeVar("Target")

Item = TypeVar("Item")


def to_plain(value: Any) -> Any:
    """Convert dataclasses, tuples and paths, at any depth, to dicts, lists and strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(cls: type[Target], data: Any) -> Target:
    """Build a dataclass from the output of `to_plain`.

    Raises:
        TypeError: if a field is unknown, missing, or has a value of another type; names the field.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__} is read from an object, not from {data!r:.80}")
    hints = _hints(cast(Any, cls))
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise TypeError(f"{cls.__name__} has no field {', '.join(unknown)}")
    required = {
        item.name for item in fields(cast(Any, cls)) if item.default is MISSING and item.default_factory is MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**{name: _read(hints[name], value, f"{cls.__name__}.{name}") for name, value in data.items()})


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin is Union:
        return _read_union(get_args(hint), value, where)
    if origin is tuple:
        return _read_tuple(get_args(hint), value, where)
    if origin is dict:
        key_hint, item_hint = get_args(hint)
        return {
            int(key) if key_hint is int else key: _read(item_hint, item, where)
            for key, item in _checked(dict, value, where).items()
        }
    if is_dataclass(hint):
        return from_plain(cast(Any, hint), value)
    return _read_scalar(hint, value, where)


def _read_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    (choice,) = (item for item in choices if item is not type(None))
    return _read(choice, value, where)


def _read_tuple(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    items = _checked(list, value, where)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_read(parts[0], item, where) for item in items)
    if len(items) != len(parts):
        raise TypeError(f"{where} has {len(parts)} parts, not {len(items)}")
    return tuple(_read(part, item, where) for part, item in zip(parts, items))


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Path:
        return Path(_checked(str, value, where))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise TypeError(f"{where} is a number, not {value!r}")
    return _checked(hint, value, where)


def _checked(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{where} is of type {kind.__name__}, not {value!r:.80}")
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Evaluated type hints of the fields of a dataclass."""
    names = {**vars(sys.modules[cls.__module__]), "tuple": tuple, "dict": dict}
    return {item.name: _evaluated(item.type, names) for item in fields(cls)}


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    """Evaluate a hint with `X | Y` rewritten as `Union[X, Y]`; hints are strings if annotations are postponed."""
    if not isinstance(hint, str):
        return hint
    tree = ast.fix_missing_locations(_Unions().visit(ast.parse(hint, mode="eval")))
    return eval(compile(tree, "<type hint>", "eval"), {"__builtins__": __builtins__}, {**names, "_Union": Union})


class _Unions(ast.NodeTransformer):
    """Rewrites `X | Y` as `Union[X, Y]`."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Rewrite one union; hints contain no other operators."""
        choices = ast.Tuple([self.visit(node.left), self.visit(node.right)], ast.Load())
        return ast.Subscript(ast.Name("_Union", ast.Load()), choices, ast.Load())


def pair(items: Iterable[Item]) -> tuple[Item, Item]:
    """The two items of a pair; ValueError if there are more or fewer."""
    first, second = items
    return first, second


def triple(items: Iterable[Item]) -> tuple[Item, Item, Item]:
    """The three items of a triple; ValueError if there are more or fewer."""
    first, second, third = items
    return first, second, third
