"""Records of annotation files: ids, names, references, and the type of every field that is read anywhere."""

import math
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.data.images import image_name
from gen4det.data.spool import without_masks

Rule = tuple[Callable[[object], bool], str]


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


_TEXT: Rule = (lambda value: value is None or isinstance(value, str), "text")
_FLAG: Rule = (lambda value: type(value) in (int, bool) and value in (0, 1), "0, 1, true or false")
_IDS: Rule = (lambda value: isinstance(value, list) and all(map(_is_whole, value)), "a list of category ids")
_COUNT: Rule = (lambda value: _is_whole(value) and value >= 0, "a whole number from 0 on")

OPTIONAL: dict[str, dict[str, Rule]] = {
    "images": {
        "file_name": _TEXT,
        "coco_url": _TEXT,
        "neg_category_ids": _IDS,
        "not_exhaustive_category_ids": _IDS,
    },
    "annotations": {
        "iscrowd": _FLAG,
        "ignore": _FLAG,
        "area": (lambda value: value is None or _is_number(value), "a number"),
    },
    "categories": {
        "def": _TEXT,
        "frequency": (lambda value: value in (None, "r", "c", "f"), "r, c or f"),
        "split": (lambda value: value in (None, "base", "novel"), "base or novel"),
        "image_count": _COUNT,
        "instance_count": _COUNT,
    },
}
"""Fields that may be missing, and what they hold where they are not. No other optional field is read, but for
`segmentation`, which is checked with the geometry."""

_KINDS = {"images": "image", "annotations": "annotation", "categories": "category"}


def check_records(data: dict, source: str | Path) -> None:
    """Ids, names, references and types of fields. Raises InputError for the first problem."""
    data = data | {"annotations": without_masks(data["annotations"])}
    if not data["images"]:
        raise InputError(f"{source}: no images")
    if not data["categories"]:
        raise InputError(f"{source}: no categories")
    image_ids = _integers(data["images"], "image", "id", source)
    category_ids = _integers(data["categories"], "category", "id", source)
    annotation_ids = _integers(data["annotations"], "annotation", "id", source)
    for kind, ids in (("image", image_ids), ("category", category_ids), ("annotation", annotation_ids)):
        values, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise InputError(
                f"{source}: {kind} id {values[counts > 1][0]} is used {counts[counts > 1][0]} times"
            )
    for side in ("width", "height"):
        sides = _integers(data["images"], "image", side, source)
        if (sides <= 0).any():
            bad = int(np.argmax(sides <= 0))
            raise InputError(
                f"{source}: image {image_ids[bad]}: {side} {sides[bad]}; expected at least 1 pixel"
            )
    _check_fields(data, source)
    _check_names(data, source)
    for kind, known in (("image", image_ids), ("category", category_ids)):
        used = _integers(data["annotations"], "annotation", f"{kind}_id", source)
        unknown = ~np.isin(used, known)
        if unknown.any():
            bad = int(np.argmax(unknown))
            raise InputError(f"{source}: annotation {annotation_ids[bad]}: unknown {kind} {used[bad]}")


def _check_fields(data: dict, source: str | Path) -> None:
    for records, rules in OPTIONAL.items():
        for record in data[records]:
            for key, (is_sound, expected) in rules.items():
                if key in record and not is_sound(record[key]):
                    raise InputError(
                        f"{source}: {_KINDS[records]} {record['id']}: {key} must be {expected}, or left out "
                        f"(got {record[key]!r:.60})"
                    )


def bad_annotations(data: dict) -> list[tuple[int, str]]:
    """(position, what is wrong) of the annotations that `check_records` would refuse, one problem each."""
    images, categories = (
        {record.get("id") for record in data[key] if isinstance(record, dict) and _is_whole(record.get("id"))}
        for key in ("images", "categories")
    )
    seen: set[int] = set()
    found = []
    for position, annotation in enumerate(data["annotations"]):
        if reason := _problem_of(annotation, images, categories, seen):
            found.append((position, reason))
        else:
            seen.add(annotation["id"])
    return found


def _problem_of(annotation: object, images: set, categories: set, seen: set[int]) -> str | None:
    if not isinstance(annotation, dict):
        return f"expected an object, got {annotation!r:.60}"
    for key, known in (("id", None), ("image_id", images), ("category_id", categories)):
        value = annotation.get(key)
        if not _is_whole(value):
            return f"{key} must be a whole number (got {value!r:.60})"
        if known is not None and value not in known:
            return f"unknown {key.removesuffix('_id')} {value}"
    if annotation["id"] in seen:
        return f"its id {annotation['id']} is used before"
    for key, (is_sound, expected) in OPTIONAL["annotations"].items():
        if key in annotation and not is_sound(annotation[key]):
            return f"{key} must be {expected}, or left out (got {annotation[key]!r:.60})"
    return None


def _check_names(data: dict, source: str | Path) -> None:
    seen: set[str] = set()
    for category in data["categories"]:
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{source}: category {category['id']}: no name")
        if name in seen:
            raise InputError(f"{source}: two categories are called {name!r}")
        seen.add(name)
    seen = set()
    for image in data["images"]:
        try:
            name = image_name(image)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if name in seen:
            raise InputError(f"{source}: two images have the file name {name!r}")
        seen.add(name)


def _integers(records: list[dict], kind: str, key: str, source: str | Path) -> np.ndarray:
    """One whole number per record, int64."""
    try:
        values = array("q")
        for record in records:
            if type(value := record[key]) is not int:  # true and false would pass for 1 and 0
                break
            values.append(value)
        else:
            return np.array(values, dtype=np.int64)
    except (KeyError, TypeError, OverflowError):
        pass  # the record at fault is looked for below
    records_of = next(name for name, one in _KINDS.items() if one == kind)
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{source}: {records_of}[{position}]: expected an object, got {record!r:.60}")
        name = f"{kind} {record['id']}" if key != "id" and "id" in record else f"{records_of}[{position}]"
        if key not in record:
            raise InputError(f"{source}: {name}: no {key}")
        if not _is_whole(record[key]):
            raise InputError(f"{source}: {name}: {key} must be a whole number (got {record[key]!r:.60})")
    raise AssertionError(f"{source}: {kind} {key}: numpy refused whole numbers")


# --- what counts ----------------------------------------------------------------------------------


def normalised(data: dict) -> dict:
    """The same in one notation: flags are 0 or 1, empty values are left out.

    Args:
        data: a dictionary that passed `check_records`.
    """
    return data | {"annotations": [_plain(annotation) for annotation in data["annotations"]]}


def _plain(annotation: dict) -> dict:
    plain = dict(annotation)
    for key in ("iscrowd", "ignore"):
        if key in plain:
            plain[key] = int(plain[key])
    for key in ("segmentation", "area"):
        if key in plain and (plain[key] is None or plain[key] in ([], {}, "")):
            del plain[key]
    if "area" in plain and not math.isfinite(plain["area"]):
        del plain["area"]
    return plain
