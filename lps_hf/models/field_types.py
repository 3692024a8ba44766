"""Values of a configuration's fields, checked by the annotations of its class, and read from text by them.

The annotations are the one list of what type a field has: a new field is checked as soon as it is annotated.
"""

import ast
import json
import types
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch

_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
_SCALARS = {bool: "a bool", int: "an int", float: "a number", str: "a str"}


@cache
def field_types(owner: Any) -> dict[str, Any]:
    """The annotation of every field of a dataclass, those of its base classes too, or of every argument of a function.

    Args:
        owner: The dataclass or function.

    Returns:
        `dict`: By name.
    """
    # transformers imports torch for type checkers only.
    found = get_type_hints(owner, localns={"torch": torch})
    return {name: annotation for name, annotation in found.items() if get_origin(annotation) is not ClassVar}


def check_fields(instance: Any, owner: type | None = None) -> None:
    """Refuse a field of the wrong type, and make Python's numbers of numpy's, which JSON cannot write.

    Args:
        instance: A dataclass instance; its fields are replaced by the checked ones.
        owner: Check only the fields that this class itself annotates. Default: all.

    Raises:
        TypeError: Naming the field, what was expected and what was given.
    """
    types_of = field_types(cast(Hashable, type(instance)))
    for name in types_of if owner is None else owner.__annotations__:
        if hasattr(instance, name):
            value = getattr(instance, name)
            checked = checked_value(name, value, types_of[name])
            if checked is not value:
                setattr(instance, name, checked)


def checked_value(name: str, value: Any, annotation: Any) -> Any:
    """A value of the declared type.

    A whole number passes for a real one, but neither a bool nor a text for a number. Tuples and arrays pass for lists.

    Args:
        name: Name of the field, for the message.
        value: What was given.
        annotation: The field's annotation.

    Returns:
        The value, with Python's numbers for numpy's and lists for tuples and arrays.

    Raises:
        TypeError: If the value has another type, or is a whole number of more than 64 bits.
    """
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    for kind in _alternatives(annotation):
        try:
            return _fit(value, kind)
        except TypeError:
            continue
    bits = " of at most 64 bits" if type(value) is int and abs(value) >= 2**63 else ""
    raise TypeError(f"{name}: expected {describe(annotation)}{bits}, got {type(value).__name__} {value!r}.")


def value_from_text(name: str, text: str, annotation: Any) -> Any:
    """Read a value of the declared type from text, as a command line or a YAML file gives it.

    Args:
        name: Name of the field, for the message.
        text: The text: `false` or `no` for a bool, `1e-3` for a number, `none` or `null` for None, JSON for lists and
            dictionaries; a list of numbers may also be written `3,2` or `3 2`.
        annotation: The field's annotation.

    Returns:
        The value.

    Raises:
        TypeError: If the text is none of the declared type.
    """
    # Text as such comes last: everything is text.
    for kind in sorted(_alternatives(annotation), key=lambda kind: kind in (str, Any)):
        try:
            return _read(text.strip(), kind)
        except (TypeError, ValueError, SyntaxError):
            continue
    raise TypeError(f"{name}: expected {describe(annotation)}, got the text {text!r}.")


def value_from_file(name: str, value: Any, annotation: Any) -> Any:
    """A value as a YAML file gives it, of the declared type: text is read where the field takes none.

    YAML makes text of `1e-3`, `None` and `"False"`.

    Args:
        name: Name of the field, for the message.
        value: The value.
        annotation: The field's annotation.

    Returns:
        The value.

    Raises:
        TypeError: If it has another type.
    """
    if isinstance(value, str) and str not in _alternatives(annotation):
        return value_from_text(name, value, annotation)
    return checked_value(name, value, annotation)


def describe(annotation: Any) -> str:
    """An annotation in words, such as "a list of int or None"."""
    return " or ".join(_describe(kind) for kind in _alternatives(annotation))


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    return [annotation]


def _fit(value: Any, kind: Any) -> Any:
    """The value as one kind of those that an annotation allows.

    Raises:
        TypeError: If it is none.
    """
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    fits = True
    if kind is Any:
        return value
    if kind in (None, type(None)):
        fits = value is None
    elif origin is Literal:
        fits = type(value) in {type(choice) for choice in arguments}  # which of them is asked where ranges are
    elif kind is bool or isinstance(value, bool):
        fits = isinstance(value, bool) and kind is bool
    elif kind is int:
        fits = isinstance(value, int) and abs(value) < 2**63  # tensors hold no more
    elif kind is float:
        fits = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
    elif origin in (list, tuple):
        fits = isinstance(value, list | tuple)
        if fits:
            return [checked_value("", item, arguments[0] if arguments else Any) for item in value]
    elif origin is dict:
        fits = isinstance(value, Mapping)
        if fits and arguments:
            key_kind, item_kind = arguments
            return {checked_value("", key, key_kind): checked_value("", item, item_kind) for key, item in value.items()}
    elif isinstance(origin, type):
        fits = isinstance(value, origin) and (origin is str or type(value) is not str)  # a text is no sequence of values
    if not fits:
        raise TypeError
    return value


def _read(text: str, kind: Any) -> Any:
    """Text as one kind of those that an annotation allows.

    Raises:
        TypeError: If it is none.
        ValueError: Likewise.
        SyntaxError: Likewise.
    """
    origin = get_origin(kind) or kind
    if kind in (None, type(None)) and text.lower() in ("none", "null"):
        return None
    if kind is bool and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if kind in (int, float):
        return kind(text)
    if kind is str:
        quoted = len(text) > 1 and text[0] == text[-1] == '"'
        return json.loads(text) if quoted else text
    if origin is Literal and text in get_args(kind):
        return text
    if origin in (list, tuple) and not text.startswith(("[", "(")):
        item_kind = (get_args(kind) or (Any,))[0]
        return [value_from_text("", item, item_kind) for item in text.replace(",", " ").split()]
    if origin in (list, tuple, dict):
        return _fit(_literal(text), kind)
    if kind is Any:
        try:
            return _literal(text)
        except (ValueError, SyntaxError):
            return text
    raise TypeError


def _literal(text: str) -> Any:
    """JSON, or the same as Python writes it."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)


def _describe(kind: Any) -> str:
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if kind in (None, type(None)):
        return "None"
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (list, tuple, dict):
        inner = ", ".join(getattr(part, "__name__", str(part)) for part in arguments if part is not Ellipsis)
        return f"a {'dict' if origin is dict else 'list'}{' of ' + inner if inner else ''}"
    return getattr(kind, "__name__", str(kind))
