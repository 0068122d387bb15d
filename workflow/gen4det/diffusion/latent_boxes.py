"""Boxes of an image on the grid of its latent cells. Nothing here imports torch."""

import math
from collections.abc import Sequence

import numpy as np

from gen4det.core.errors import InputError

Box = Sequence[float]
"""[x, y, width, height] in pixels of the image."""

_ROUNDING = 1e-6  # of a cell: a side that falls on a cell's border must not claim the next one


def latent_mask(boxes: Sequence[Box], image: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Where an image is kept and where it is painted.

    Boxes are widened to whole cells, so that each of them paints one cell at least.

    Args:
        boxes: not empty.
        image: (height, width) in pixels.
        cells: (height, width) of the latent image, which shows the whole image.

    Returns:
        float32 of shape `cells`: 0 in the union of the boxes, 1 elsewhere.

    Raises:
        InputError: there is no box.
    """
    if not boxes:
        raise InputError("grounded inpainting: no box to paint")
    mask = np.ones(cells, np.float32)
    for x, y, width, height in boxes:
        mask[_span(y, y + height, image[0], cells[0]), _span(x, x + width, image[1], cells[1])] = 0
    return mask


def _span(start: float, stop: float, length: int, cells: int) -> slice:
    low = math.floor(start * cells / length + _ROUNDING)
    low = min(max(low, 0), cells - 1)
    high = math.ceil(stop * cells / length - _ROUNDING)
    return slice(low, max(min(high, cells), low + 1))


def painted_share(box: Box, image: tuple[int, int], mask: np.ndarray) -> float:
    """Share of a box's area, in [0, 1], that a latent mask paints. See `latent_mask`."""
    x, y, width, height = box
    rows = _overlap(y, y + height, image[0], mask.shape[0])
    columns = _overlap(x, x + width, image[1], mask.shape[1])
    inside = np.outer(rows, columns)
    return float((inside * (1 - mask)).sum() / max(inside.sum(), np.finfo(float).tiny))


def _overlap(start: float, stop: float, length: int, cells: int) -> np.ndarray:
    """How much of each cell lies between start and stop, in cells."""
    edges = np.arange(cells + 1)
    low, high = start * cells / length, stop * cells / length
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)


def relative_corners(box: Box, image: tuple[int, int]) -> list[float]:
    """[x0, y0, x1, y1] of a box as shares of the image's (height, width), in [0, 1]."""
    x, y, width, height = box
    corners = x / image[1], y / image[0], (x + width) / image[1], (y + height) / image[0]
    return [min(max(corner, 0.0), 1.0) for corner in corners]
