"""From the size of a reference to the size that is drawn: whole latent cells, nothing padded."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gen4det.engines.diffusionengine.settings import SizeSettings


@dataclass(frozen=True)
class Frame:
    """What of a reference is redrawn, in pixels."""

    resized: tuple[int, int]
    """(height, width) that the whole image is resized to."""
    crop: tuple[int, int, int, int]
    """(top, left, height, width) of the part that is redrawn."""


def frame_of(height: int, width: int, settings: SizeSettings, cell: int, rng: np.random.Generator) -> Frame:
    """Fit a reference.

    A whole image is resized to the nearest multiples of a cell, which changes its proportions by half a cell
    at most. A part has sides in whole cells, rounded down, and lies anywhere.

    Args:
        height, width: of the reference in pixels.
        cell: side of a latent cell in pixels.
    """
    scale = settings.short / min(height, width)
    if settings.long is not None:
        scale = min(scale, settings.long / max(height, width))
    if settings.crop is None:
        whole = tuple(max(1, round(side * scale / cell)) * cell for side in (height, width))
        return Frame(whole, (0, 0, *whole))
    resized = tuple(max(cell, round(side * scale)) for side in (height, width))
    least, most = settings.crop
    sides = [int(rng.integers(min(least, side), min(most, side) + 1)) for side in resized]
    sides = [max(1, side // cell) * cell for side in sides]
    corner = [int(rng.integers(whole - side + 1)) for whole, side in zip(resized, sides, strict=True)]
    return Frame(resized, (*corner, *sides))


def framed(image: np.ndarray, frame: Frame) -> np.ndarray:
    """The part of a reference that is redrawn, uint8 (height, width, 3) of the frame's crop."""
    height, width = frame.resized
    if image.shape[:2] != (height, width):
        image = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    top, left, height, width = frame.crop
    return image[top : top + height, left : left + width]
