"""Base class of every typed setting."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gen4det.errors import InputError


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
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "(top level)"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(model.model_fields)) if len(first["loc"]) == 1 else ""
            hint = f"; known keys: {known}" if known else ""
            raise InputError(f"{source}: {where}: unknown key{hint}") from None
        got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise InputError(f"{source}: {where}: {first['msg']}{got}") from None
