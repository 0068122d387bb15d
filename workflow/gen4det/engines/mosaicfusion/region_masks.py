"""One region: attention maps and pixels -> the mask of its object, or the reason why there is none.

MosaicFusion, section 3.3. `region_mask` is a pure function of its arguments, so that it runs in a pool of
processes beside the generation of the next images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gen4det.data.masks import box_of_rle, mask_to_rle
from gen4det.engines.mosaicfusion.bilateral_solver import refine
from gen4det.engines.mosaicfusion.heatmaps import HeatMapError, aggregate, binarise
from gen4det.engines.mosaicfusion.mask_settings import ComponentSettings, MaskSettings

# Reasons of a rejection, beside `heatmaps.NOT_FINITE` and `heatmaps.FLAT` of a heat map without contrast.
NONE = "no component"
MULTIPLE = "multiple components"
TOO_SMALL = "component too small"
TOO_LARGE = "component too large"


@dataclass(frozen=True)
class RegionMask:
    """The object's mask in the region, or why it was rejected: exactly one of the two."""

    mask: np.ndarray | None
    """bool (H, W) of the region."""
    reason: str | None


def region_mask(
    heat: Mapping[int, np.ndarray],
    rgb: np.ndarray,
    settings: MaskSettings,
) -> RegionMask:
    """Mask of the one object that a region was prompted with.

    Args:
        heat: resolution -> float32 (h, w), the object token's cross-attention (see `heatmaps.aggregate`).
        rgb: uint8 (H, W, 3), the decoded pixels of the region's diffusion rectangle.

    Returns:
        A mask with exactly one connected component, or a reason.
    """
    try:
        heat_map = aggregate(heat, rgb.shape[:2], settings.aggregation, fill_rings=settings.fill_rings)
    except HeatMapError as error:
        return RegionMask(None, str(error))
    return single_component(refine(binarise(heat_map, settings), rgb, settings.solver), settings.components)


def single_component(mask: np.ndarray, settings: ComponentSettings) -> RegionMask:
    """Keep the one connected component within the limits; components outside them are erased.

    Args:
        mask: bool (H, W) of the whole region, whose size the limits refer to.
    """
    height, width = mask.shape
    structure = ndimage.generate_binary_structure(2, 2 if settings.connectivity == 8 else 1)
    labels, count = ndimage.label(mask, structure)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if settings.reference == "official":
        smallest, largest = settings.official_min_area, settings.official_max_area
    else:
        smallest, largest = (
            fraction * mask.size for fraction in (settings.min_area_fraction, settings.max_area_fraction)
        )
    kept, excess = [], False
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        area, tall, wide = areas[label - 1], rows.stop - rows.start, columns.stop - columns.start
        if (
            area > largest
            or tall > settings.max_height_fraction * height
            or wide > settings.max_width_fraction * width
        ):
            excess = True
        elif (
            area >= smallest
            and tall >= settings.min_height_fraction * height
            and wide >= settings.min_width_fraction * width
        ):
            kept.append(label)
    if len(kept) == 1:
        return RegionMask(labels == kept[0], None)
    if kept:
        return RegionMask(None, MULTIPLE)
    if count == 0:
        return RegionMask(None, NONE)
    return RegionMask(None, TOO_LARGE if excess else TOO_SMALL)


def place(
    mask: np.ndarray, rectangle: tuple[int, int, int, int], canvas: tuple[int, int]
) -> tuple[dict, list[float]]:
    """Put a region's mask on the canvas, at the region's diffusion rectangle.

    Two regions overlap in the band they share, and so may their objects: there is no order of occlusion.

    Args:
        mask: bool (h, w), not empty.
        rectangle: x, y, width, height of the diffusion rectangle in pixels of the canvas.
        canvas: (height, width) of the canvas.

    Returns:
        The run-length mask of the whole canvas and its tight box [x, y, width, height].

    Raises:
        ValueError: the mask is not of the rectangle's size, or the rectangle leaves the canvas.
    """
    x, y, width, height = rectangle
    if mask.shape != (height, width) or x < 0 or y < 0 or y + height > canvas[0] or x + width > canvas[1]:
        raise ValueError(f"mask {mask.shape} does not fit rectangle {rectangle} of a canvas of {canvas}")
    whole = np.zeros(canvas, dtype=bool)
    whole[y : y + height, x : x + width] = mask
    rle = mask_to_rle(whole)
    return rle, box_of_rle(rle)
