"""Greedy non-maximum suppression on the CPU, for the stand-in of mmcv's operator; see `mmcv_ext`."""

import numpy as np
import torch
from torch import Tensor

_BLOCK = 256  # boxes whose mutual overlaps are resolved one after the other


def greedy(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the kept boxes; arguments and result as of `mmcv_ext.nms`."""
    order = scores.sort(descending=True, stable=True).indices.cpu()
    # NumPy rather than torch: the pieces are small, and its single thread needs no pool to wake up.
    # Half precision would make the areas of real images overflow.
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    candidates = boxes.detach().cpu()[order].to(dtype).numpy()
    threshold = candidates.dtype.type(iou_threshold)
    alive = np.ones(len(order), dtype=bool)
    for group in _apart(candidates, offset) if threshold >= 0 else [np.arange(len(order))]:
        if len(group) > 1:
            alive[group] = _survivors(candidates[group], threshold, offset)
    return order[torch.from_numpy(alive)].to(boxes.device)


def _apart(boxes: np.ndarray, offset: int) -> list[np.ndarray]:
    """Boxes in groups, each in their order, so that boxes of different groups share no column of pixels.

    mmdet shifts the boxes of each category, or of each level, to a place of their own. Pairs of two places
    are most pairs, and their overlap is exactly 0. A box that is not a number stays with all right of it.
    """
    from_left = boxes[:, 0].argsort(kind="stable")
    left, right = boxes[from_left, 0], np.maximum.accumulate(boxes[from_left, 2])
    cuts = np.flatnonzero(left[1:] >= right[:-1] + 2 * offset) + 1  # twice: whatever the sums are rounded to
    return [np.sort(group) for group in np.split(from_left, cuts)]


def _survivors(boxes: np.ndarray, threshold: np.floating, offset: int) -> np.ndarray:
    """Which of these boxes, best first, no better one that is kept covers; bool (boxes,)."""
    alive = np.ones(len(boxes), dtype=bool)
    for start in range(0, len(boxes), _BLOCK):
        block = start + np.flatnonzero(alive[start : start + _BLOCK])
        kept = _kept(_iou(boxes[block], boxes[block], offset) > threshold)
        alive[block] = kept
        rest = start + _BLOCK + np.flatnonzero(alive[start + _BLOCK :])
        covered = _iou(boxes[block[kept]], boxes[rest], offset) > threshold
        alive[rest] = ~covered.any(axis=0)
    return alive


def suppress(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression in several sets of boxes at once, few enough for all pairs.

    Args:
        boxes: (..., N, 4) float32 on the CPU, as x1, y1, x2, y2, the best first.
        iou_threshold: see `mmcv_ext.nms`.

    Returns:
        Which boxes are kept, bool (..., N).
    """
    boxes = boxes.numpy()
    return torch.from_numpy(_kept(_iou(boxes, boxes, 0) > boxes.dtype.type(iou_threshold)))


def _kept(covers: np.ndarray) -> np.ndarray:
    """Which boxes are kept, bool (..., N), of boxes that cover each other, bool (..., N, N), the best first.

    A box is kept if none that is kept covers it and is better. Put in for what is kept, any guess gives a
    better one: of the first box it is right, and of box k as soon as it was right for those before. No other
    guess than the right one gives itself. As a rule a few rounds do for hundreds of boxes.
    """
    covers = np.triu(covers, 1)
    kept = np.ones(covers.shape[:-1], dtype=bool)
    while True:
        better = ~(covers & kept[..., None]).any(axis=-2)
        if np.array_equal(better, kept):
            return kept
        kept = better


def _iou(first: np.ndarray, second: np.ndarray, offset: int) -> np.ndarray:
    """IoU (..., A, B) of every pair of (..., A, 4) and (..., B, 4), as the compiled operator computes it."""
    x1, y1, x2, y2 = np.moveaxis(first, -1, 0)[..., None]
    u1, v1, u2, v2 = np.moveaxis(second, -1, 0)[..., None, :]
    width = np.minimum(x2, u2)
    width -= np.maximum(x1, u1)
    width += offset
    np.maximum(width, 0, out=width)
    height = np.minimum(y2, v2)
    height -= np.maximum(y1, v1)
    height += offset
    np.maximum(height, 0, out=height)
    common = np.multiply(width, height, out=width)
    union = np.add(
        (x2 - x1 + offset) * (y2 - y1 + offset), (u2 - u1 + offset) * (v2 - v1 + offset), out=height
    )
    union -= common
    with np.errstate(divide="ignore", invalid="ignore"):  # two empty boxes: 0/0 suppresses nothing
        return np.divide(common, union, out=common)
