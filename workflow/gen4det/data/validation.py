"""Check whole annotation files before anything heavy starts: one line says what is wrong, and where."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.data.annotations import is_object
from gen4det.data.images import ImageStore, image_name
from gen4det.data.masks import run_lengths
from gen4det.data.records import check_records
from gen4det.data.spool import kept, without_masks

TOLERANCE = 1.0
"""Pixels by which boxes and polygons may exceed their image. Real files do, by rounding: annotation tools
count the last pixel as W - 1 or as W. Nothing is clipped; detectors and evaluation clip for themselves."""

_SINGLE = "set iscrowd to 0 where a region is one object (some tools write 1 for every brushed mask)"

CHUNK = 5_000
"""Annotations that are looked at together; bounds the memory."""


def validate_annotations(
    data: dict,
    *,
    source: str | Path,
    images: ImageStore | None = None,
    decode: bool = False,
    allow_empty_categories: bool = False,
    hint: str = "",
) -> list[str]:
    """Check a COCO or LVIS dictionary; the first problem is an error.

    Args:
        source: the file named in messages.
        images: where the images lie; without it only the annotations are checked.
        decode: read every image to its end (finds truncated files) instead of its header only.
        allow_empty_categories: warn about categories without an object instead of refusing them.
        hint: what to do about bad annotations, for the message.

    Returns:
        Warnings, one line each.

    Raises:
        InputError: duplicate ids or names; an unknown image or category; a field of the wrong type; a box of
            zero area, outside its image (by more than `TOLERANCE`) or not finite; broken polygons or
            run-length codes; no object at all, or a category without one (crowds are none); an image that is
            missing, damaged or of another size than annotated.
    """
    warnings = []
    check_records(data, source)
    problems = geometry_problems(data)
    if problems:
        index, reason = problems[0]
        more = f" (and {len(problems) - 1} more such annotations)" if len(problems) > 1 else ""
        then = f"; {hint}" if hint else ""
        raise InputError(f"{source}: annotation {data['annotations'][index]['id']}: {reason}{more}{then}")
    warnings += _check_categories(data, source, allow_empty_categories)
    without_mask = sum(not a.get("segmentation") for a in data["annotations"])
    if without_mask:
        total = len(data["annotations"])
        warnings.append(f"{source}: {without_mask} of {total} annotations have a box but no mask")
    if images is not None:
        check_images(data, source, images, decode=decode)
    return warnings


# --- categories and their objects -----------------------------------------------------------------


def categories_without_objects(data: dict) -> tuple[list[str], list[str]]:
    """Names of the categories without any annotation, and of those whose every region is to be ignored."""
    seen: dict[int, bool] = {}
    for annotation in without_masks(data["annotations"]):
        key = annotation["category_id"]
        seen[key] = seen.get(key, False) or is_object(annotation)
    empty = [category["name"] for category in data["categories"] if category["id"] not in seen]
    crowds = [category["name"] for category in data["categories"] if seen.get(category["id"]) is False]
    return empty, crowds


def _check_categories(data: dict, source: str | Path, allow_empty: bool) -> list[str]:
    """Warnings; raises InputError where nothing can be learnt or measured."""
    if not data["annotations"]:
        raise InputError(f"{source}: no annotations; nothing can be learnt from it, and nothing measured")
    empty, crowds = categories_without_objects(data)
    if len(empty) + len(crowds) == len(data["categories"]):
        raise InputError(f"{source}: every region is a crowd or to be ignored, none is an object; {_SINGLE}")
    total, warnings = len(data["categories"]), []
    if empty:
        line = f"{source}: {len(empty)} of {total} categories have no image: {_listed(empty)}"
        if not allow_empty:
            raise InputError(f"{line}; remove them, or set allow_empty_categories")
        warnings.append(line)
    if crowds:
        line = f"{source}: {len(crowds)} of {total} categories have crowd regions alone: {_listed(crowds)}"
        if not allow_empty:
            raise InputError(f"{line}; {_SINGLE}, or set allow_empty_categories")
        warnings.append(line)
    return warnings


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


# --- geometry -----------------------------------------------------------------------------------


def geometry_problems(data: dict) -> list[tuple[int, str]]:
    """(position in data["annotations"], what is wrong with its box or mask), by position.

    References must have been checked. One problem per annotation, boxes before masks.
    """
    annotations = data["annotations"]
    size_of = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    pairs = (size_of[a["image_id"]] for a in without_masks(annotations))
    sizes = np.fromiter(pairs, dtype=np.dtype((np.float64, 2)), count=len(annotations))
    problems: dict[int, str] = {}
    for start in range(0, len(annotations), CHUNK):
        some, of_some = annotations[start : start + CHUNK], sizes[start : start + CHUNK]
        found = _box_problems(some, of_some)
        for position, reason in _mask_problems(some, of_some):
            found.setdefault(position, reason)
        problems |= {start + position: reason for position, reason in found.items()}
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
    dropped = {data["annotations"][index]["id"]: reason for index, reason in problems}
    annotations = kept(data["annotations"], lambda annotation: annotation["id"] not in dropped)
    return data | {"annotations": annotations}, [f"{it} ({reason})" for it, reason in dropped.items()]


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
            where = ""
            if reason == "outside its image":
                width, height = sizes[position].tolist()
                x, y, right, lower = boxes[position].tolist()
                where = f" of {width:.0f}x{height:.0f} pixels"
                if 0 <= x < right <= width + TOLERANCE and 0 <= y < lower <= height + TOLERANCE:
                    where += "; expected [x, y, width, height]: are these two corners?"
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
                if reason := _shape_problem(polygon, segmentation):
                    problems.append((position, reason))
                    break
                polygons.append(polygon)
                owners.append(position)
        else:
            problems.append((position, "segmentation: expected polygons or a run-length code"))
    return problems + _polygon_problems(polygons, np.array(owners, dtype=np.int64), sizes)


def _shape_problem(polygon: object, segmentation: list) -> str | None:
    """What is wrong with the layout of a polygon."""
    if _is_numbers(segmentation):
        return "segmentation: one flat list of numbers; expected a list of polygons, [[x, y, x, y, ...], ...]"
    if isinstance(polygon, dict):
        return "segmentation: a run-length code in a list; expected the code itself, or polygons"
    if not isinstance(polygon, list):
        return f"polygon {polygon!r:.60}: expected [x, y, x, y, ...]"
    if polygon and all(isinstance(point, list) for point in polygon):
        return "polygon: a list of points [[x, y], ...]; expected one flat list, [x, y, x, y, ...]"
    if len(polygon) % 2:
        return f"polygon of {len(polygon)} numbers: expected pairs, [x, y, x, y, ...]"
    if len(polygon) < 6:
        return f"polygon of {len(polygon) // 2} points: expected three at least, [x, y, x, y, x, y, ...]"
    return None


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


def check_images(
    data: dict,
    source: str | Path,
    images: ImageStore,
    *,
    decode: bool,
    on_bad: Callable[[dict, str], None] | None = None,
) -> None:
    """Every image is there, readable and of the annotated size.

    Args:
        on_bad: told of each bad image: its record, and what is wrong.

    Raises:
        InputError: the first problem, without `on_bad`.
    """

    def problem_of(record: dict) -> str | None:
        try:
            if decode:
                height, width = images.image(image_name(record)).shape[:2]
                size = width, height
            else:
                size = images.size(image_name(record))
        except InputError as error:
            return str(error)
        return _size_problem(record, size, source, images)

    description = "decoding images" if decode else "checking images"
    for record, problem in zip(
        data["images"], _in_threads(problem_of, data["images"], description), strict=True
    ):
        if problem and on_bad is None:
            raise InputError(problem)
        if problem:
            on_bad(record, problem)


def _size_problem(record: dict, size: tuple[int, int], source: str | Path, images: ImageStore) -> str | None:
    if size == (record["width"], record["height"]):
        return None
    turned = size == (record["height"], record["width"])
    hint = " (turned: does the file carry an EXIF orientation?)" if turned else ""
    return (
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
