"""Base class of every typed setting, and the one-line error for a bad setting."""

import difflib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from gen4det.core.errors import InputError


class Settings(BaseModel):
    """Immutable settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


def parse_settings(model: type[S], values: dict, *, source: str | Path) -> S:
    """Validate `values` against `model`.

    Args:
        source: file (and key path) named in the error.

    Raises:
        InputError: one line with source, key path and what was expected, for the first problem.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(model, values, error.errors()[0])}") from None


def suggest(name: str, known: Iterable[str]) -> str:
    """Text that follows "unknown key": a near miss if there is one, else what is known, else nothing."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def _explain(model: type, values: dict, error: Any) -> str:
    """Key path and what was expected there, from one entry of pydantic's list."""
    path, known = _locate(model, values, error["loc"])
    where = ".".join(path) or "(top level)"
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{suggest(path[-1], known)}"
        case "missing":
            return f"{where}: required key is missing"
        case "union_tag_not_found":
            return f"{where}: required key {context['discriminator']} is missing"
        case "union_tag_invalid":
            key = context["discriminator"].strip("'")
            return f"{where}.{key}: expected one of {context['expected_tags']} (got {context['tag']!r})"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{where}: {message}" if path else message
        case _:
            return f"{where}: {error['msg']} (got {_short(error['input'])})"


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _locate(model: type, values: Any, loc: tuple) -> tuple[list[str], set[str]]:
    """Key path of a pydantic error without the tags of unions, and the keys known where it points."""
    path: list[str] = []
    here: list[Any] = [model]
    for depth, part in enumerate(loc):
        is_last = depth == len(loc) - 1
        if isinstance(values, dict) and part not in values and not is_last:
            here = [kind for kind in here if _has_tag(kind, part)] or here
            continue
        path.append(str(part))
        values = values[part] if isinstance(values, dict | list | tuple) and not is_last else None
        if not is_last:
            here = [member for kind in here for child in _children(kind, part) for member in _members(child)]
    return path, {name for kind in here if _is_model(kind) for name in kind.model_fields}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _members(annotation: Any) -> list[Any]:
    """A union's alternatives; anything else as it is."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for option in get_args(annotation) for member in _members(option)]
    return [annotation]


def _children(kind: Any, part: str | int) -> list[Any]:
    """Annotations that stand at `part` inside `kind`."""
    if _is_model(kind):
        return [kind.model_fields[part].annotation] if part in kind.model_fields else []
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return [arguments[1]]
    return [option for option in arguments if option is not Ellipsis]


def _has_tag(kind: Any, tag: object) -> bool:
    """Whether a union's alternative is the one that is chosen by `tag`."""
    if not _is_model(kind):
        return False
    hints = typing.get_type_hints(kind)
    return any(get_origin(hint) is Literal and tag in get_args(hint) for hint in hints.values())
