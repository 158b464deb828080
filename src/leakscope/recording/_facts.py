# SPDX-License-Identifier: Apache-2.0
"""The small typed values of a recording as JSON, and back with every type checked.

Works on the model's frozen classes by their annotations: a member that the text lacks takes
its default, one that the class lacks is passed over, and one of another type is refused.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

__all__ = ["FactError", "from_json", "to_json"]

T = TypeVar("T")
_WORD = 1 << 64


class FactError(ValueError):
    """A value is not what the class asks for; the text names the member."""


def to_json(value: Any) -> Any:
    """Return the members of a frozen class for `json.dumps`, without those that are unset.

    They may be such classes themselves, or tuples of them.
    """
    if isinstance(value, tuple):
        return [to_json(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    return {
        field.name: to_json(found)
        for field in dataclasses.fields(value)
        if (found := getattr(value, field.name)) is not None
    }


def from_json(kind: type[T], value: Any) -> T:
    """Return an instance of a frozen class from what `json.loads` found."""
    if not isinstance(value, dict):
        raise FactError(f"{kind.__name__} is not an object")
    hints = typing.get_type_hints(kind)
    members: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in value:
            members[field.name] = _checked(
                hints[field.name], value[field.name], f"{kind.__name__}.{field.name}"
            )
        elif type(None) in typing.get_args(hints[field.name]):
            members[field.name] = None
    try:
        return kind(**members)
    except TypeError as error:
        raise FactError(f"a member of {kind.__name__} is missing") from error


def _checked(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (each for each in arguments if each is not type(None))
        return _checked(hint, value, name)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json(hint, value)
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(arguments[0], each, name) for each in value)
    if origin is dict and isinstance(value, dict):
        return {
            _checked(arguments[0], key, name): _checked(arguments[1], each, name)
            for key, each in value.items()
        }
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if hint is int and isinstance(value, int) and -_WORD < value < _WORD:
            return value
        if hint is float and (isinstance(value, float) or abs(value) < _WORD):
            number = float(value)
            if math.isfinite(number):
                return number
    raise FactError(f"{name} is not what it should be")
