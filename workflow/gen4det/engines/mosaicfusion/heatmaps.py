"""One region's cross-attention maps -> one 8-bit heat map -> a coarse binary mask.

MosaicFusion, section 3.3 ("attention aggregation" and "mask generation").
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from gen4det.engines.mosaicfusion.mask_settings import MaskSettings

NOT_FINITE = "attention is not finite"
FLAT = "attention is flat"
ROUNDING = 1e-5
"""Relative differences up to this are rounding in float32, not contrast that may be stretched."""


class HeatMapError(ValueError):
    """The attention maps hold no contrast to cut a mask from; the message is the reason of the rejection."""


def aggregate(
    heat: Mapping[int, np.ndarray],
    size: tuple[int, int],
    mode: Literal["official", "paper"],
    *,
    fill_rings: bool = False,
) -> np.ndarray:
    """Combine the maps of all resolutions into one heat map of the region.

    "official": every resolution is divided by its own maximum and reduced to 8 bits before it is resized, so
    that each contributes with the same peak; their mean, in double precision, is divided by its maximum.
    "paper": maps are resized as they are and added up, and the sum is stretched to the full range. Because
    resizing is linear, layers of one resolution may be added up before it.

    Args:
        heat: resolution -> float (h, w), the object token's probability, averaged over steps and heads and
            added up over layers. Keys tell resolutions apart and grow from fine to coarse; "paper" needs maps
            of one scale, so that every layer counts the same.
        size: (height, width) of the region in pixels.
        fill_rings: whether each map is filled first, see `filled`.

    Returns:
        uint8 (height, width).

    Raises:
        HeatMapError: a value is NaN or infinite, or the result is constant (all zero included).
        ValueError: no maps.
    """
    if not heat:
        raise ValueError("no attention maps")
    maps = {key: np.asarray(heat[key], dtype=np.float32) for key in sorted(heat)}
    if not all(np.isfinite(values).all() for values in maps.values()):
        raise HeatMapError(NOT_FINITE)
    if fill_rings:
        maps = {key: filled(values) for key, values in maps.items()}
    if mode == "official":
        combined = _official(list(maps.values()), size)
    else:
        combined = _paper(list(maps.values()), size)
    if combined.min() == combined.max():
        raise HeatMapError(FLAT)
    return combined


def filled(values: np.ndarray) -> np.ndarray:
    """Fill basins as rain would: what brighter cells enclose is raised to where it would flow off.

    Water flows between cells that share a side, and off the borders of the map, so that a ring holds it even
    where its cells touch at corners only.

    Args:
        values: finite float (h, w).

    Returns:
        (h, w), nowhere below `values`.
    """
    level = np.full_like(values, values.max())
    level[[0, -1]], level[:, [0, -1]] = values[[0, -1]], values[:, [0, -1]]
    while True:
        lower = np.maximum(ndimage.grey_erosion(level, footprint=_CROSS, mode="nearest"), values)
        if np.array_equal(lower, level):
            return level
        level = lower


_CROSS = ndimage.generate_binary_structure(2, 1)


def _official(maps: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    total = np.zeros(size)
    for values in reversed(maps):  # from coarse to fine, as the released code adds them up
        # One band is resized like each of three equal ones, at a third of the cost.
        coarse = Image.fromarray(_to_bytes(values))
        total += np.asarray(_resize(coarse, size)) / 255
    mean = total / len(maps)
    peak = mean.max()
    # In this order: which level a mean just at its edge falls on depends on what is rounded first.
    return (255 * mean / peak if peak > 0 else mean).astype(np.uint8)


def _paper(maps: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    total = np.zeros(size, dtype=np.float32)
    for values in maps:
        total += np.asarray(_resize(Image.fromarray(values), size))
    lowest = total.min()  # bicubic may undershoot zero
    if total.max() - lowest <= ROUNDING * np.abs(total).max():
        return np.zeros(size, dtype=np.uint8)
    return _to_bytes(total - lowest)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Divide by the maximum, times 255, truncated; zeros where there is nothing positive."""
    peak = values.max()
    if peak <= 0:
        return np.zeros(values.shape, dtype=np.uint8)
    return (np.clip(values / peak, 0, 1) * 255).astype(np.uint8)


def binarise(heat_map: np.ndarray, settings: MaskSettings) -> np.ndarray:
    """Coarse mask: the pixels strictly above the threshold.

    Args:
        heat_map: uint8 (H, W).

    Returns:
        bool (H, W).
    """
    if settings.threshold == "simple":
        return heat_map / 255 > settings.simple_threshold
    return heat_map > otsu_threshold(heat_map)


def otsu_threshold(image: np.ndarray) -> int:
    """Otsu's threshold of an 8-bit map: the level that maximises the variance between the two classes.

    The same level as OpenCV's, but for two levels of exactly equal variance: there the lower one is taken,
    where builds of OpenCV differ among themselves. Integers throughout, so that rounding decides nothing.

    Args:
        image: uint8, any shape.

    Returns:
        A level in [0, 254]; foreground is strictly greater. 0 for a constant image.
    """
    counts = np.bincount(image.ravel(), minlength=256).tolist()
    pixels, total = image.size, sum(level * count for level, count in enumerate(counts))
    below = sum_below = threshold = 0
    best, best_scale = 0, 1
    for level, count in enumerate(counts):
        below += count
        sum_below += level * count
        # variance = difference**2 / (below * above), up to a factor; compared as fractions
        difference = total * below - pixels * sum_below
        scale = below * (pixels - below)
        if scale and difference**2 * best_scale > best * scale:
            best, best_scale, threshold = difference**2, scale, level
    return threshold
