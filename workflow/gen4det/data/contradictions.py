"""Areas and boxes that contradict the masks of the same annotations."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.data.annotations import is_object
from gen4det.data.masks import area_of_rle, box_of_rle, segmentation_to_rle

BOX_TOLERANCE = 2.0
"""Pixels by which an edge of a box may be off the edge of its mask."""
BOX_OVERLAP = 0.75
"""IoU of box and mask's extent from which on they agree, whatever the edges: boxes may count hidden parts."""


@dataclass(frozen=True)
class Regions:
    """What the regions of a file measure, one row per annotation."""

    areas: np.ndarray
    """Pixels of the mask; of the box, where there is no mask or it covers the centre of no pixel. float64."""
    outlined: np.ndarray
    """Areas inside the polygons, their parts added up, as most tools compute them; without any, `areas`."""
    extents: np.ndarray
    """Box [x, y, width, height] around the mask, NaN without one; float64 (N, 4)."""


def measure_regions(data: dict) -> Regions:
    """Look at every region once.

    Args:
        data: a dictionary whose geometry was checked.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    count = len(data["annotations"])
    areas, outlined, extents = np.empty(count), np.empty(count), np.full((count, 4), np.nan)
    for row, annotation in enumerate(data["annotations"]):
        _, _, width, height = annotation["bbox"]
        areas[row] = width * height
        segmentation = annotation.get("segmentation")
        if segmentation:
            rle = segmentation_to_rle(segmentation, *sizes[annotation["image_id"]])
            areas[row] = area_of_rle(rle) or areas[row]
            extents[row] = box_of_rle(rle)
        outlined[row] = areas[row]
        if segmentation and isinstance(segmentation, list):
            parts = [np.reshape(polygon, (-1, 2)) for polygon in segmentation]
            points = np.concatenate(parts)
            low, high = points.min(axis=0), points.max(axis=0)
            extents[row] = [*low, *(high - low)]
            outlined[row] = sum(_inside(*part.T) for part in parts)
    return Regions(areas, outlined, extents)


def _inside(x: np.ndarray, y: np.ndarray) -> float:
    """Area of a polygon in px^2 by Gauss's formula."""
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def with_areas(data: dict, regions: Regions, source: str | Path) -> tuple[dict, list[str]]:
    """Every annotation with an area, in px^2, that is positive and no other than its region's.

    It may be that of the pixels or that inside the polygons, and differ by half a pixel all around the box:
    some tools count both ends of a side.

    Returns:
        The dictionary, and a warning if areas were given and recomputed.
    """
    annotations, recomputed = [], []
    measured = zip(regions.areas.tolist(), regions.outlined.tolist(), strict=True)
    for annotation, (area, outlined) in zip(data["annotations"], measured, strict=True):
        _, _, width, height = annotation["bbox"]
        given = annotation.get("area")
        tolerance = width + height + 1
        if given is None or not (given > 0 and min(abs(given - area), abs(given - outlined)) <= tolerance):
            if given is not None:
                recomputed.append((annotation["id"], given, area))
            annotation = annotation | {"area": area}
        annotations.append(annotation)
    warnings = []
    if recomputed:
        identifier, given, area = recomputed[0]
        warnings.append(
            f"{source}: the area of {len(recomputed)} of {len(annotations)} annotations is not that of their "
            f"region and was computed anew; the first is annotation {identifier}: {given:g}, its region has "
            f"{area:g} px"
        )
    return data | {"annotations": annotations}, warnings


def check_boxes(data: dict, regions: Regions, source: str | Path) -> list[str]:
    """Compare boxes with the masks of the same objects.

    Returns:
        A warning if some contradict.

    Raises:
        InputError: most contradict; then the file says something else than we read.
    """
    annotations = data["annotations"]
    rows = np.array([is_object(a) for a in annotations]) & ~np.isnan(regions.extents[:, 0])
    rows = np.flatnonzero(rows)
    if not rows.size:
        return []
    boxes = np.array([annotations[row]["bbox"] for row in rows], dtype=np.float64)
    extents = regions.extents[rows]
    wrong = ~_agree(boxes, extents)
    if not wrong.any():
        return []
    first = int(np.argmax(wrong))
    annotation = annotations[rows[first]]
    line = (
        f"{source}: box and mask of {wrong.sum()} of {rows.size} objects contradict each other; the first is "
        f"annotation {annotation['id']}: box {annotation['bbox']}, around its mask "
        f"{np.round(extents[first], 2).tolist()}"
    )
    if wrong.sum() * 2 <= rows.size:
        return [line]
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if _agree(corners, extents).mean() > 0.5:
        raise InputError(f"{line}; the boxes are corners [x, y, x, y], expected [x, y, width, height]")
    raise InputError(f"{line}; expected boxes [x, y, width, height] around the masks, in pixels")


def _agree(boxes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Whether boxes (N, 4) are those of extents (N, 4), but for rounding and hidden parts: bool (N,)."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    start, stop = extents[:, :2], extents[:, :2] + extents[:, 2:]
    near = (np.abs(np.concatenate([low - start, high - stop], axis=1)) <= BOX_TOLERANCE).all(axis=1)
    shared = np.clip(np.minimum(high, stop) - np.maximum(low, start), 0, None).prod(axis=1)
    union = np.clip(boxes[:, 2:], 0, None).prod(axis=1) + extents[:, 2:].prod(axis=1) - shared
    with np.errstate(invalid="ignore", divide="ignore"):
        return near | (shared / union >= BOX_OVERLAP)
