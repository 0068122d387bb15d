"""How a canvas is cut into regions (MosaicFusion, section 3.2, "mosaicking image canvas").

All lengths are pixels of the canvas. `cell` is the side of one latent cell in pixels, i.e. the down-sampling
factor of the autoencoder (8 for Stable Diffusion): every coordinate is a multiple of it.
"""

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

from gen4det.core.errors import InputError
from gen4det.engines.mosaicfusion.settings import Settings


class Box(NamedTuple):
    """[x, y, width, height], COCO convention."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """A cut canvas. Regions are ordered row by row, from the upper left.

    `cores` partition the canvas. `regions` are what is diffused and labelled: each core, extended by half the
    overlap past the cuts it touches, but not past the canvas.
    """

    height: int
    width: int
    cores: tuple[Box, ...]
    regions: tuple[Box, ...]


def draw_layout(draw: random.Random, objects: int, settings: Settings, cell: int) -> Layout:
    """Draw a layout for 1, 2 or 4 objects.

    One object has the whole canvas; two lie side by side or one above the other (a fair coin); four meet in a
    centre that is uniform in [sigma, 1 - sigma] of the canvas, rounded down to whole cells, but to one at
    least. Two are cut in the middle, since the paper jitters a centre; the released code, which
    `random_stream: official` follows draw by draw, jitters their cut like one axis of the centre. The coin
    comes before the cut, and x before y.

    Raises:
        InputError: see `check_sizes`.
    """
    check_sizes(settings, cell)
    height, width = settings.region_height, settings.region_width
    if objects == 1:
        return cut(height, width, [], [], settings)
    if objects == 2:
        one_above_the_other = draw.choice((False, True))
        side = height if one_above_the_other else width
        if settings.random_stream == "official":
            at = _jittered(draw, side, settings.centre_sigma, cell)
        else:
            at = side
        if one_above_the_other:
            return cut(2 * height, width, [at], [], settings)
        return cut(height, 2 * width, [], [at], settings)
    x = _jittered(draw, width, settings.centre_sigma, cell)
    y = _jittered(draw, height, settings.centre_sigma, cell)
    return cut(2 * height, 2 * width, [y], [x], settings)


def _jittered(draw: random.Random, side: int, sigma: float, cell: int) -> int:
    position = draw.uniform(2 * sigma, 2 - 2 * sigma) * side
    return max(math.floor(position) // cell, 1) * cell


def cut(height: int, width: int, rows: list[int], columns: list[int], settings: Settings) -> Layout:
    """Cut a canvas at the given rows (y) and columns (x)."""
    cores, regions = [], []
    for top, bottom in zip([0, *rows], [*rows, height], strict=True):
        for left, right in zip([0, *columns], [*columns, width], strict=True):
            cores.append(Box(left, top, right - left, bottom - top))
            x0, x1 = _extended(left, right, width, settings.overlap_width // 2)
            y0, y1 = _extended(top, bottom, height, settings.overlap_height // 2)
            regions.append(Box(x0, y0, x1 - x0, y1 - y0))
    return Layout(height, width, tuple(cores), tuple(regions))


def _extended(start: int, stop: int, length: int, margin: int) -> tuple[int, int]:
    return start if start == 0 else start - margin, stop if stop == length else stop + margin


def check_sizes(settings: Settings, cell: int) -> None:
    """Refuse lengths that do not fall on latent cells.

    Raises:
        InputError: a side of the region is no multiple of `cell`, or an overlap none of 2 * `cell`.
    """
    for name, unit in (
        ("region_height", cell),
        ("region_width", cell),
        ("overlap_height", 2 * cell),  # half of it lies on either side of the cut
        ("overlap_width", 2 * cell),
    ):
        value = getattr(settings, name)
        if value % unit:
            raise InputError(f"mosaicfusion: {name}: {value} px is not a multiple of this model's {unit} px")
