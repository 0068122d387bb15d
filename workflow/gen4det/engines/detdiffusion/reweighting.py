"""More weight for objects in the loss of the noise, most for small ones (GeoDiffusion). No torch."""

from collections.abc import Iterable, Sequence

import numpy as np


def foreground_weights(
    boxes: Iterable[Sequence[float]], cells: tuple[int, int], *, weight: float = 2.0, power: float = 0.2
) -> np.ndarray:
    """Weights of the latent cells of one image.

    Corners are rounded to cells. A box of h x w cells weighs weight / ((h + 1) (w + 1)) ^ power, the
    background 1 / (cells) ^ power; later boxes lie over earlier ones. The map is then scaled to a mean of 1.

    Args:
        boxes: [x0, y0, x1, y1] as shares of the image's sides, in [0, 1].
        cells: (height, width) of the latent image.

    Returns:
        float32 of shape `cells`; all ones without boxes.
    """
    height, width = cells
    weights = np.full(cells, 1 / (height * width) ** power)
    for x0, y0, x1, y1 in boxes:
        left, right = round(x0 * width), round(x1 * width)
        top, bottom = round(y0 * height), round(y1 * height)
        weights[top:bottom, left:right] = weight / ((bottom - top + 1) * (right - left + 1)) ** power
    return (weights / weights.mean()).astype(np.float32)
