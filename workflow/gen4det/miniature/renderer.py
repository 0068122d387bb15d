"""Procedural renderer: scenes of named objects with exact masks and tight boxes.

A scene is a function of its seed alone. Everything is painted at `SUPERSAMPLING` times the resolution
and averaged down; an instance's mask holds the pixels it covers by more than half and that no later
object hides.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from gen4det.miniature.categories import Category

SUPERSAMPLING = 3
MIN_VISIBLE = 0.5  # an object keeps at least this share of its pixels, or it is not placed


@dataclass(frozen=True)
class Placed:
    """One visible object: category, mask (H, W) bool, box [x, y, w, h] in pixels, colour word."""

    category: Category
    mask: np.ndarray
    box: tuple[int, int, int, int]
    colour: str


@dataclass(frozen=True)
class Scene:
    """Image uint8 (H, W, 3) and its objects, back to front; style is "photo" or "drawing"."""

    image: np.ndarray
    objects: list[Placed]
    style: str


@dataclass(frozen=True)
class Variation:
    """How freely objects are drawn; each share in [0, 1]."""

    position: float = 1.0
    """Share of the free room around the centre in which an object may stand."""
    rotation: float = 1.0
    """Share of the category's largest rotation."""
    any_colour: float = 0.2
    """Share of objects whose hue is not one of the category's typical ones."""


PORTRAIT = Variation(position=0.4, rotation=0.5, any_colour=0.04)
"""Who takes a picture of one thing puts it near the middle; narrower than the detection scenes, because a
small model on a small budget has to learn it."""

COLOUR_WORDS = (
    (15, "red"), (42, "orange"), (68, "yellow"), (160, "green"), (200, "cyan"), (255, "blue"),
    (290, "purple"), (345, "pink"), (360, "red"),
)  # fmt: skip


def colour_word(hue: float) -> str:
    """English word for a hue in degrees."""
    return next(word for limit, word in COLOUR_WORDS if hue % 360 <= limit)


def render_scene(
    seed: int,
    categories: list[Category],
    size: int | tuple[int, int],
    object_size: tuple[float, float],
    style: str = "photo",
    variation: Variation = Variation(),  # noqa: B008  (immutable)
) -> Scene:
    """Draw the given categories, one object each, in a scene.

    Args:
        seed: determines everything that is not an argument.
        categories: one entry per object, painted in this order (later ones occlude earlier ones).
        size: side, or (height, width), in pixels.
        object_size: smallest and largest extent of an object's longer side in pixels.
        style: "photo" (flat colours on a background) or "drawing" (dark outlines on paper).
        variation: how freely position, rotation and colour vary.

    Returns:
        A scene; an object that finds no place without hiding another too much is left out.
    """
    rng = np.random.default_rng(seed)
    height, width = (size, size) if isinstance(size, int) else size
    canvas = _background(rng, height, width, style)
    placed: list[tuple[Category, np.ndarray, str]] = []
    for category in categories:
        for _ in range(8):
            typical = float(rng.choice(category.hues)) + rng.normal(0, 9)
            hue = rng.uniform(0, 360) if rng.random() < variation.any_colour else typical
            parts = _pose(rng, category, height, width, object_size, variation)
            mask = _coverage(parts, height, width)
            if mask.sum() < 24 or any((old & ~mask).sum() < MIN_VISIBLE * old.sum() for _, old, _ in placed):
                continue
            _paint(canvas, parts, _palette(rng, hue), style)
            placed = [(c, old & ~mask, word) for c, old, word in placed]
            placed.append((category, mask, colour_word(hue)))
            break
    image = canvas.reduce(SUPERSAMPLING)
    if style == "photo":
        noise = rng.normal(0, 1.5, (height, width, 1))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    objects = [Placed(c, mask, _tight_box(mask), word) for c, mask, word in placed]
    return Scene(np.asarray(image), objects, style)


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value))


def _palette(rng: np.random.Generator, hue: float) -> dict[str, tuple[int, int, int]]:
    value = rng.uniform(0.7, 0.98)
    return {
        "main": _rgb(hue, rng.uniform(0.65, 0.95), value),
        "second": _rgb(hue + rng.uniform(25, 45), rng.uniform(0.55, 0.85), value * 0.85),
        "light": _rgb(hue, rng.uniform(0.02, 0.14), rng.uniform(0.92, 1.0)),
        "dark": _rgb(hue + 180, rng.uniform(0.15, 0.4), rng.uniform(0.18, 0.3)),
    }


def _background(rng: np.random.Generator, height: int, width: int, style: str) -> Image.Image:
    """Wall and floor, or open sky: muted colours with a soft vertical gradient and a few soft spots."""
    if style == "drawing":
        return Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), (246, 243, 234))
    hue, saturation = rng.uniform(0, 360), rng.uniform(0.05, 0.28)
    top, bottom = (
        np.array(_rgb(hue + d, saturation, rng.uniform(0.45, 0.85))) for d in (0, rng.uniform(-40, 40))
    )
    ramp = np.linspace(0, 1, height)[:, None, None]
    small = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3)).copy()
    if rng.random() < 0.5:
        horizon = int(height * rng.uniform(0.45, 0.8))
        small[horizon:] = np.array(_rgb(hue + rng.uniform(20, 180), saturation, rng.uniform(0.35, 0.75)))
    image = Image.fromarray(small.astype(np.uint8))
    if rng.random() < 0.4:
        draw = ImageDraw.Draw(image)
        for _ in range(rng.integers(2, 6)):
            x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, 12)
            spot = tuple(
                np.clip(small[int(y), int(x)] * rng.uniform(0.85, 1.12), 0, 255).astype(int).tolist()
            )
            draw.ellipse((x - r, y - r, x + r, y + r), fill=spot)
        image = image.filter(ImageFilter.GaussianBlur(1.2))
    return image.resize((width * SUPERSAMPLING, height * SUPERSAMPLING), Image.Resampling.BILINEAR)


def _pose(rng, category: Category, height: int, width: int, object_size, variation: Variation):
    """The object's parts in pixels: scaled, stretched, mirrored, rotated and moved inside the image."""
    parts = category.shape(rng)
    stretch = np.exp(rng.normal(0, 0.08))
    largest = category.max_rotation * variation.rotation
    angle = np.radians(rng.uniform(-largest, largest))
    mirror = rng.choice((-1.0, 1.0))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = rotation @ np.diag((mirror * stretch, 1 / stretch))
    parts = [(role, points @ transform.T) for role, points in parts]
    everything = np.concatenate([points for _, points in parts])
    low, high = everything.min(0), everything.max(0)
    scale = np.exp(rng.uniform(*np.log(object_size))) / (high - low).max()
    extent = (high - low) * scale
    room = np.maximum(np.array([width, height]) - extent, 0)
    corner = (0.5 + variation.position * rng.uniform(-0.5, 0.5, 2)) * room
    return [(role, (points - low) * scale + corner) for role, points in parts]


def _coverage(parts, height: int, width: int) -> np.ndarray:
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for _, points in parts:
        draw.polygon([tuple(p) for p in points * SUPERSAMPLING], fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING)) > 127


def _paint(canvas: Image.Image, parts, palette, style: str) -> None:
    draw = ImageDraw.Draw(canvas)
    for role, points in parts:
        outline = [tuple(p) for p in points * SUPERSAMPLING]
        if style == "drawing":
            fill = (70, 66, 60) if role == "dark" else (246, 243, 234)
            draw.polygon(outline, fill=fill, outline=(50, 46, 42), width=SUPERSAMPLING)
        else:
            draw.polygon(outline, fill=palette[role])
