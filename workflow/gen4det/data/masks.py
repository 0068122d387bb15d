"""Run-length masks and polygons, COCO's conventions."""

import numpy as np
from pycocotools import mask as coco_mask

from gen4det.core.errors import InputError


def mask_to_rle(mask: np.ndarray) -> dict:
    """Compressed run-length code of a mask.

    Args:
        mask: bool (H, W).

    Returns:
        {"size": [H, W], "counts": str}, serialisable as JSON.
    """
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def compressed(rle: dict) -> dict:
    """The same mask with `counts` as a string; COCO writes crowds with counts as a list of run lengths."""
    if isinstance(rle["counts"], list):
        height, width = rle["size"]
        rle = coco_mask.frPyObjects(rle, height, width)
    counts = rle["counts"]
    return {
        "size": list(rle["size"]),
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def rle_to_mask(rle: dict) -> np.ndarray:
    """Mask, bool (H, W), of a run-length code, compressed or not."""
    return coco_mask.decode(compressed(rle)).astype(bool)


def area_of_rle(rle: dict) -> int:
    """Number of pixels of the mask."""
    return int(coco_mask.area(compressed(rle)))


def box_of_rle(rle: dict) -> list[float]:
    """Tight box [x, y, width, height] in pixels around the mask; zeros for an empty mask."""
    return [float(value) for value in coco_mask.toBbox(compressed(rle))]


def polygons_to_rle(polygons: list[list[float]], height: int, width: int) -> dict:
    """Union of polygons [x0, y0, x1, y1, ...] (pixels) as a run-length code of an image's size."""
    return compressed(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def segmentation_to_rle(segmentation: list | dict, height: int, width: int) -> dict:
    """Run-length code of an annotation's `segmentation`, be it polygons or a run-length code."""
    if isinstance(segmentation, dict):
        return compressed(segmentation)
    return polygons_to_rle(segmentation, height, width)


def rle_to_polygons(rle: dict) -> list[list[float]]:
    """Outlines [x0, y0, x1, y1, ...] along the edges of the pixels, one per connected component.

    Polygons of COCO and LVIS cannot express holes: holes are filled. Otherwise `polygons_to_rle` gives the
    mask back exactly.

    Returns:
        Lists of even length >= 8, coordinates whole numbers in [0, W] and [0, H]; empty for an empty mask.
    """
    import cv2

    mask = rle_to_mask(rle).astype(np.uint8)
    # Contours run through the centres of border pixels. With every pixel doubled, a left or upper border has
    # an even coordinate 2x and a right or lower one an odd 2x+1; (c+1)//2 turns both into pixel edges.
    doubled = mask.repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((contour.reshape(-1) + 1) // 2).astype(float).tolist() for contour in contours]


def run_lengths(rle: dict) -> np.ndarray:
    """Run lengths, int64, of a code whose origin is not trusted.

    Raises:
        InputError: not a run-length code, or its runs do not add up to its size. The message has no source;
            callers add it.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    ):
        raise InputError(f"run-length code of size {size!r}; expected [height, width]")
    if isinstance(counts, list):
        try:
            runs = np.array(counts, dtype=np.int64)
        except (ValueError, TypeError, OverflowError):
            raise InputError("run-length code with counts that are not whole numbers") from None
    elif isinstance(counts, str):
        runs = _decode_counts(counts)
    else:
        raise InputError(
            f"run-length code with counts of type {type(counts).__name__}; expected text or a list"
        )
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise InputError(f"run-length code whose runs do not add up to {size[0]} x {size[1]} pixels")
    return runs


def _decode_counts(text: str) -> np.ndarray:
    """Run lengths of COCO's compressed code: 6-bit characters from '0' on, five bits of value each, least
    significant first, 0x20 set where the number goes on, sign in 0x10 of its last character; from the fourth
    number on, the difference to the run two before."""
    try:
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise InputError("run-length code with characters that are not ASCII") from None
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise InputError("run-length code that is cut short or has foreign characters")
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise InputError("run-length code with a number beyond 32 bits")
    position = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * position), starts)
    numbers -= ((codes[ends] & 0x10) > 0).astype(np.int64) << (5 * lengths)
    # numbers[i] += numbers[i - 2] for i >= 3: two interleaved running sums, the one of even i starting at 2.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
