"""Annotation files are checked whole before anything heavy starts: one line says what is wrong, and where."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.data.images import ImageStore, image_name
from gen4det.data.masks import run_lengths

TOLERANCE = 1.0
"""Pixels by which boxes and polygons may exceed their image. Real files do, by rounding: annotation tools
count the last pixel as W - 1 or as W. Nothing is clipped; detectors and evaluation clip for themselves."""

CHUNK = 100_000
"""Annotations whose polygon coordinates are looked at together; bounds the memory."""


def validate_annotations(
    data: dict,
    *,
    source: str | Path,
    images: ImageStore | None = None,
    decode: bool = False,
    allow_empty_categories: bool = False,
) -> list[str]:
    """Check a COCO or LVIS dictionary; the first problem is an error.

    Args:
        source: the file named in messages.
        images: where the images lie; without it only the annotations are checked.
        decode: read every image to its end (finds truncated files) instead of its header only.
        allow_empty_categories: warn about categories without an image instead of refusing them.

    Returns:
        Warnings, one line each.

    Raises:
        InputError: duplicate ids or names; an unknown image or category; a box of zero area, outside its
            image (by more than `TOLERANCE`) or not finite; broken polygons or run-length codes; a category
            without an image; an image that is missing, damaged or of another size than annotated.
    """
    warnings = []
    check_records(data, source)
    problems = geometry_problems(data)
    if problems:
        index, reason = problems[0]
        more = f" (and {len(problems) - 1} more such annotations)" if len(problems) > 1 else ""
        raise InputError(f"{source}: annotation {data['annotations'][index]['id']}: {reason}{more}")
    if empty := empty_categories(data):
        names = ", ".join(repr(name) for name in empty)
        line = f"{source}: {len(empty)} of {len(data['categories'])} categories have no image: {names}"
        if not allow_empty_categories:
            raise InputError(f"{line}; remove them, or set allow_empty_categories")
        warnings.append(line)
    without_mask = sum(not a.get("segmentation") for a in data["annotations"])
    if without_mask:
        total = len(data["annotations"])
        warnings.append(f"{source}: {without_mask} of {total} annotations have a box but no mask")
    if images is not None:
        check_images(data, source, images, decode=decode)
    return warnings


# --- records ------------------------------------------------------------------------------------


def check_records(data: dict, source: str | Path) -> None:
    """Ids, names and references. Raises InputError for the first problem."""
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

    for kind, known in (("image", image_ids), ("category", category_ids)):
        used = _integers(data["annotations"], "annotation", f"{kind}_id", source)
        unknown = ~np.isin(used, known)
        if unknown.any():
            bad = int(np.argmax(unknown))
            raise InputError(f"{source}: annotation {annotation_ids[bad]}: unknown {kind} {used[bad]}")


def _integers(records: list[dict], kind: str, key: str, source: str | Path) -> np.ndarray:
    """One whole number per record, int64."""
    try:
        values = [record[key] for record in records]
        array = np.array(values) if values else np.empty(0, dtype=np.int64)
        if array.ndim == 1 and array.dtype.kind == "i":
            return array
    except (KeyError, TypeError, ValueError, OverflowError):
        pass  # the record at fault is looked for below
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{source}: {kind} number {position}: expected an object, got {record!r:.60}")
        name = f"{kind} {record['id']}" if key != "id" and "id" in record else f"{kind} number {position}"
        if key not in record:
            raise InputError(f"{source}: {name}: no {key}")
        if type(record[key]) is not int or abs(record[key]) >= 2**63:
            raise InputError(f"{source}: {name}: {key} must be a whole number (got {record[key]!r:.60})")
    raise AssertionError(f"{source}: {kind} {key}: numpy refused whole numbers")


def empty_categories(data: dict) -> list[str]:
    """Names of the categories without any annotation."""
    used = {annotation["category_id"] for annotation in data["annotations"]}
    return [category["name"] for category in data["categories"] if category["id"] not in used]


# --- geometry -----------------------------------------------------------------------------------


def geometry_problems(data: dict) -> list[tuple[int, str]]:
    """(position in data["annotations"], what is wrong with its box or mask), by position.

    References must have been checked. One problem per annotation, boxes before masks.
    """
    annotations = data["annotations"]
    size_of = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    sizes = np.array([size_of[a["image_id"]] for a in annotations], dtype=np.float64).reshape(-1, 2)
    problems = _box_problems(annotations, sizes)
    for start in range(0, len(annotations), CHUNK):
        stop = start + CHUNK
        for position, reason in _mask_problems(annotations[start:stop], sizes[start:stop]):
            problems.setdefault(start + position, reason)
    return sorted(problems.items())


def drop_unusable(data: dict, source: str | Path) -> tuple[dict, list[str]]:
    """Leave out the annotations with a geometry problem: for public files, whose flaws are known.

    Returns:
        The dictionary without them, and one text per annotation left out.

    Raises:
        InputError: ids, names or references are broken.
    """
    check_records(data, source)
    problems = geometry_problems(data)
    if not problems:
        return data, []
    dropped = {index for index, _ in problems}
    kept = [annotation for index, annotation in enumerate(data["annotations"]) if index not in dropped]
    texts = [f"{data['annotations'][index]['id']} ({reason})" for index, reason in problems]
    return data | {"annotations": kept}, texts


def _box_problems(annotations: list[dict], sizes: np.ndarray) -> dict[int, str]:
    problems = {}
    boxes = np.full((len(annotations), 4), np.nan)
    given = [a.get("bbox") for a in annotations]
    well_formed = [position for position, box in enumerate(given) if _is_numbers(box) and len(box) == 4]
    boxes[well_formed] = np.array([given[position] for position in well_formed], dtype=np.float64).reshape(
        -1, 4
    )
    corner, extent = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        tests = (
            (~np.isfinite(boxes).all(axis=1), "expected four finite numbers [x, y, width, height]"),
            ((extent <= 0).any(axis=1), "zero area"),
            (
                ((corner < -TOLERANCE) | (corner + extent > sizes + TOLERANCE)).any(axis=1),
                "outside its image",
            ),
        )
    for bad, reason in tests:
        for position in np.flatnonzero(bad).tolist():
            image = "x".join(f"{side:.0f}" for side in sizes[position])
            where = f" of {image} pixels" if reason == "outside its image" else ""
            problems.setdefault(position, f"box {given[position]!r:.80}: {reason}{where}")
    return problems


def _is_numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) for value in values)


def _mask_problems(annotations: list[dict], sizes: np.ndarray) -> list[tuple[int, str]]:
    problems = []
    polygons: list[list[float]] = []
    owners: list[int] = []
    for position, annotation in enumerate(annotations):
        segmentation = annotation.get("segmentation")
        if not segmentation:
            continue  # a box without a mask
        if isinstance(segmentation, dict):
            if reason := _rle_problem(segmentation, sizes[position]):
                problems.append((position, reason))
        elif isinstance(segmentation, list):
            for polygon in segmentation:
                if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                    reason = "polygon: expected [x, y, x, y, ...] of three points at least"
                    problems.append((position, reason))
                    break
                polygons.append(polygon)
                owners.append(position)
        else:
            problems.append((position, "segmentation: expected polygons or a run-length code"))
    return problems + _polygon_problems(polygons, np.array(owners, dtype=np.int64), sizes)


def _polygon_problems(
    polygons: list[list[float]], owners: np.ndarray, sizes: np.ndarray
) -> list[tuple[int, str]]:
    if not polygons:
        return []
    lengths = np.array([len(polygon) for polygon in polygons])
    if not set(map(type, chain.from_iterable(polygons))) <= {int, float}:
        bad = [position for position, polygon in enumerate(polygons) if not _is_numbers(polygon)]
        return [(int(owners[position]), "polygon: coordinates that are not numbers") for position in bad]
    flat = np.fromiter(chain.from_iterable(polygons), dtype=np.float64, count=int(lengths.sum()))
    points = flat.reshape(-1, 2)
    starts = np.concatenate([[0], np.cumsum(lengths // 2)[:-1]])
    with np.errstate(invalid="ignore"):
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        inside = (low >= -TOLERANCE) & (high <= sizes[owners] + TOLERANCE)
    problems = []
    for position in np.flatnonzero(~inside.all(axis=1)):
        extent = f"{low[position].tolist()} to {high[position].tolist()}"
        problems.append(
            (int(owners[position]), f"polygon reaches outside its image or is not finite: {extent}")
        )
    return problems


def _rle_problem(rle: dict, size: np.ndarray) -> str | None:
    try:
        runs = run_lengths(rle)
    except InputError as error:
        return str(error)
    if rle["size"] != [size[1], size[0]]:
        return f"run-length code of size {rle['size']}; its image has [{size[1]:.0f}, {size[0]:.0f}]"
    if runs[1::2].sum() == 0:
        return "run-length code of an empty mask"
    return None


# --- images -------------------------------------------------------------------------------------


def check_images(data: dict, source: str | Path, images: ImageStore, *, decode: bool) -> None:
    """Every image is there, readable and of the annotated size. Raises InputError for the first problem."""

    def size_of(record: dict) -> tuple[int, int]:
        if decode:
            height, width = images.image(image_name(record)).shape[:2]
            return width, height
        return images.size(image_name(record))

    description = "decoding images" if decode else "checking images"
    for record, size in zip(data["images"], _in_threads(size_of, data["images"], description), strict=True):
        if size != (record["width"], record["height"]):
            turned = size == (record["height"], record["width"])
            hint = " (turned: does the file carry an EXIF orientation?)" if turned else ""
            raise InputError(
                f"{images.root / image_name(record)}: {size[0]}x{size[1]} pixels, but {source} says "
                f"{record['width']}x{record['height']}{hint}"
            )


def _in_threads(function: Callable, items: list, description: str):
    """Results in order, computed a few at a time: Pillow decodes outside the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in progress(futures, description, "image"):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
