"""Boxes and attributes as words of a prompt, after GeoDiffusion and DetDiffusion. No torch.

    An image with cup <l4660> <l30000> [easy] fish <l12> <l513> [hard]

A location is a place of a grid laid over the image: `<l{row * columns + column}>`. An object is its class,
the locations of its upper left and lower right corner, and its attribute.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from gen4det.core.errors import InputError
from gen4det.diffusion.words import context_length
from gen4det.engines.detdiffusion.layouts import Layout, LayoutObject
from gen4det.engines.detdiffusion.settings import WordSettings

ATTRIBUTES = {"easy": "[easy]", "hard": "[hard]"}
_LOCATION = re.compile(r"<l(\d+)>")
EASIEST, HARDEST = 0.95, 0.5


# --- locations --------------------------------------------------------------------------------------


def location(x: float, y: float, words: WordSettings) -> int:
    """Number of the place next to a point; ties go to the even one, as Python rounds.

    Args:
        x, y: shares of width and height, in [0, 1].

    Raises:
        InputError: outside of the image.
    """
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(
            f"location ({x:g}, {y:g}): outside of the image; expected shares of its sides in [0, 1]"
        )
    return round(y * (words.rows - 1)) * words.columns + round(x * (words.columns - 1))


def place(number: int, words: WordSettings) -> tuple[float, float]:
    """The point, (x, y) in [0, 1], that a location stands for."""
    row, column = divmod(number, words.columns)
    return column / (words.columns - 1), row / (words.rows - 1)


def corners(box: Sequence[float], height: int, width: int, words: WordSettings) -> tuple[int, int]:
    """Locations of the upper left and lower right corner of a box [x, y, w, h] in pixels of an image.

    Raises:
        InputError: a corner lies outside of the image by more than rounding.
    """
    x, y, w, h = box
    points = ((x / width, y / height), ((x + w) / width, (y + h) / height))
    return tuple(location(*(_near(side) for side in point), words) for point in points)


def _near(side: float) -> float:
    """Sums of pixels may miss the border by a rounding error."""
    return min(max(side, 0.0), 1.0) if -1e-6 < side < 1 + 1e-6 else side


def location_words(words: WordSettings) -> list[str]:
    """The new words, by number."""
    return [f"<l{number}>" for number in range(words.rows * words.columns)]


def location_vectors(words: WordSettings, width: int) -> np.ndarray:
    """Initial vectors of the locations: sines and cosines of column and row.

    The first half of a vector encodes the column, the second the row; in each, sines of falling frequencies
    10000^(-i / (width / 4)) stand before the cosines.

    Args:
        width: of the text encoder's vectors.

    Returns:
        float32 (rows * columns, width), of length `init_norm`, or the root of width / 2.

    Raises:
        InputError: a width that is not a multiple of 4.
    """
    if width % 4:
        raise InputError(f"words: vectors of {width} numbers; locations need a multiple of 4")
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    halves = []
    for count in (words.columns, words.rows):
        angles = np.arange(count)[:, None] * frequencies
        halves.append(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    columns, rows = np.tile(halves[0], (words.rows, 1)), np.repeat(halves[1], words.columns, axis=0)
    vectors = np.concatenate([columns, rows], axis=1)
    if words.init_norm is not None:
        vectors *= words.init_norm / np.sqrt(width / 2)
    return vectors.astype(np.float32)


def known_locations(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many locations a tokenizer has words for."""
    added = (_LOCATION.fullmatch(word) for word in tokenizer.get_added_vocab())
    return sum(found is not None for found in added)


def require_grid(tokenizer: PreTrainedTokenizerBase, words: WordSettings, *, where: Any) -> None:
    """Refuse a checkpoint whose locations are those of another grid.

    Raises:
        InputError: another number of locations than the settings have.
    """
    found, wanted = known_locations(tokenizer), words.rows * words.columns
    if found != wanted:
        raise InputError(
            f"{where}: its tokenizer has words for {found} locations, but words.rows and words.columns make "
            f"{words.rows} x {words.columns} = {wanted}; use the grid it was fitted with"
        )


# --- prompts ----------------------------------------------------------------------------------------


def phrase(member: LayoutObject, height: int, width: int, words: WordSettings) -> str:
    """One object as words: class, upper left, lower right, attribute."""
    first, last = corners(member.box, height, width, words)
    parts = [member.name, f"<l{first}>", f"<l{last}>"]
    if member.attribute is not None:
        parts.append(ATTRIBUTES[member.attribute])
    return " ".join(parts)


def prompt(layout: Layout, words: WordSettings) -> str:
    """All objects of a layout, in their order."""
    return " ".join(
        [words.opening, *(phrase(it, layout.height, layout.width, words) for it in layout.objects)]
    )


def fitting(layout: Layout, words: WordSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[str, int]:
    """The prompt of as many objects, from the first on, as the text encoder reads whole.

    Counted are the tokenizer's own tokens: it may spell one class with many.

    Returns:
        The prompt and the number of objects in it.

    Raises:
        InputError: not even one object fits.
    """
    phrases = [phrase(it, layout.height, layout.width, words) for it in layout.objects]
    window = context_length(tokenizer)
    for count in range(len(phrases), 0, -1):
        text = " ".join([words.opening, *phrases[:count]])
        if len(tokenizer(text, verbose=False).input_ids) <= window:
            return text, count
    raise InputError(
        f"image {layout.image_id}: {phrases[0]!r} alone is longer than the {window} tokens that the text "
        "encoder reads; give its category a shorter name"
    )
