"""Strict reading of JSON files."""

import json
from pathlib import Path

from gen4det.core.errors import InputError


def read_json(path: str | Path, what: str) -> dict:
    """A JSON file that holds an object.

    Args:
        what: what the file should be, for the message, e.g. "annotations of COCO or LVIS".

    Raises:
        InputError: the file is missing, unreadable, not JSON, cut short, or holds something else.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected {what}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file, or cut short: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: not {what}: a JSON {type(value).__name__}, where an object is expected")
    return value


def dumps(value: object) -> bytes:
    """JSON with sorted keys and no blanks, as all files of labels are written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
