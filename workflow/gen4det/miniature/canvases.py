"""Canvases as MosaicFusion draws them, but rendered: one object in each region, exact masks.

They tell what a data set of such canvases is worth where the generator makes no mistake.
"""

import random
from collections.abc import Sequence

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.renderer import PORTRAIT, Placed, Scene, render_scene

OBJECT_SIZE = (0.65, 0.98)
"""Extent of an object as a share of its region's shorter side: what the miniature's U-Net draws for
MosaicFusion lies between 0.65 and 1.05 of it (from the first to the eighth tenth)."""

CENTRE = (0.375, 0.625)
"""Where the four regions of `random_regions` meet, as a share of its side (MosaicFusion, Table 2b)."""

_BY_ID = {category.id: category for category in CATEGORIES}


def render_canvas(regions: Sequence[dict], height: int, width: int, seed: int) -> Scene:
    """Render each region as a picture of its own, one object in it, and lay them side by side.

    Position, rotation and colour vary as in the corpus that the generator learned from, so that this is what
    a perfect generator would draw.

    Args:
        regions: rows of a manifest, {"category_id", "core": [x, y, width, height] in pixels of the canvas};
            the cores cover the canvas.
        seed: determines everything that is not an argument.

    Returns:
        Image uint8 (height, width, 3), and for each region in turn its object, mask and box on the canvas.

    Raises:
        InputError: a category the miniature does not have, or a region too small for an object.
    """
    image = np.zeros((height, width, 3), np.uint8)
    objects = []
    for number, region in enumerate(regions):
        x, y, w, h = region["core"]
        category = _BY_ID.get(region["category_id"])
        if category is None:
            raise InputError(
                f"category {region['category_id']}: the miniature's renderer draws no such object"
            )
        limits = tuple(share * min(w, h) for share in OBJECT_SIZE)
        part = render_scene(seed_for(seed, "region", number), [category], (h, w), limits, variation=PORTRAIT)
        if not part.objects:
            raise InputError(f"region of {w} x {h} px: too small to show an object of the miniature")
        image[y : y + h, x : x + w] = part.image
        (placed,) = part.objects
        mask = np.zeros((height, width), bool)
        mask[y : y + h, x : x + w] = placed.mask
        left, top, *size = placed.box
        objects.append(Placed(category, mask, (left + x, top + y, *size), placed.colour))
    return Scene(image, objects, "photo")


def random_regions(seed: int, side: int) -> list[dict]:
    """Four regions of a square canvas that meet near its middle, any category in each (`render_canvas`)."""
    draw = random.Random(seed)
    x, y = (round(draw.uniform(*CENTRE) * side) for _ in range(2))
    return [
        {"category_id": draw.choice(CATEGORIES).id, "core": [left, top, right - left, bottom - top]}
        for top, bottom in ((0, y), (y, side))
        for left, right in ((0, x), (x, side))
    ]
