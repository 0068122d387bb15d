"""Ways to spoil a rendered picture, each with a strength."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Spoil = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def blurred(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Out of focus."""
    radius = (0.01 + 0.03 * strength) * max(image.shape)
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def noisy(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Grain in every channel."""
    grain = rng.normal(0, 15 + 60 * strength, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def pixelated(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Coarse blocks of one colour each."""
    height, width = image.shape[:2]
    side = (0.02 + 0.08 * strength) * max(height, width)
    small = Image.fromarray(image).resize(
        (max(1, round(width / side)), max(1, round(height / side))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def compressed(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Stored as JPEG of low quality."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=round(2 + 18 * (1 - strength)))
    return np.asarray(Image.open(stream).convert("RGB"))


def shuffled(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Square pieces, a sixth of the picture wide, in each other's places."""
    side = max(1, min(image.shape[:2]) // 6)
    corners = [
        (y, x)
        for y in range(0, image.shape[0] - side + 1, side)
        for x in range(0, image.shape[1] - side + 1, side)
    ]
    chosen = rng.permutation(len(corners))[: max(2, round(strength * len(corners)))]
    spoilt = image.copy()
    for source, target in zip(chosen, np.roll(chosen, 1), strict=True):
        (y, x), (v, u) = corners[source], corners[target]
        spoilt[v : v + side, u : u + side] = image[y : y + side, x : x + side]
    return spoilt


def washed(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A veil of one colour over everything."""
    share = 0.3 + 0.6 * strength
    veil = rng.uniform(0, 255, 3)
    return ((1 - share) * image + share * veil).astype(np.uint8)


def melted(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Outlines bent by a smooth random field of shifts, as where a generator loses the shape of a thing."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(float)
    reach = (0.02 + 0.07 * strength) * max(height, width)
    for grid in (y, x):
        coarse = rng.uniform(-reach, reach, (9, 9)).astype(np.float32)
        grid += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    rows = np.clip(np.rint(y), 0, height - 1).astype(int)
    columns = np.clip(np.rint(x), 0, width - 1).astype(int)
    return image[rows, columns]


KINDS: dict[str, Spoil] = {
    "blur": blurred, "noise": noisy, "pixels": pixelated, "jpeg": compressed, "shuffle": shuffled,
    "wash": washed, "melt": melted,
}  # fmt: skip


def degrade(
    image: np.ndarray,
    kind: str,
    strength: float,
    rng: np.random.Generator,
    boxes: list[tuple[int, int, int, int]] | None = None,
) -> np.ndarray:
    """A spoilt copy of a picture.

    Args:
        image: uint8 (H, W, 3).
        kind: one of KINDS.
        strength: in (0, 1].
        boxes: [x, y, w, h] in pixels; given, only what is inside of one of them is spoilt.

    Returns:
        uint8 (H, W, 3).
    """
    spoilt = KINDS[kind](image, strength, rng)
    if boxes is None:
        return spoilt
    inside = np.zeros(image.shape[:2], bool)
    for x, y, w, h in boxes:
        inside[y : y + h, x : x + w] = True
    return np.where(inside[..., None], spoilt, image)
