"""A page of references and what becomes of them at several encode ratios, with the adapter's boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import PAGE_WIDTH, PALETTE, as_text, style

LAST, PIXELS = PALETTE[3], PALETTE[2]
"""Colours of boxes from the last step, and from the finished picture."""


@dataclass(frozen=True)
class Descendant:
    """A reference, or what was drawn from it."""

    image: np.ndarray
    """uint8 (H, W, 3)."""
    last_step: list[dict]
    """Boxes from the last step: {"bbox", "score", "name"}; of a reference none."""
    pixels: list[dict]
    """Boxes of the picture as it is, encoded again."""


def similarity(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the pixels of two images of one size, from -1 to 1; 0 where one has a single colour."""
    first, second = (it.astype(np.float64).ravel() - it.mean() for it in (image, other))
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / size) if size else 0.0


def agreement(descendant: Descendant, threshold: float, least: float = 0.5) -> tuple[int, int]:
    """How many boxes of the last step the finished picture confirms, and how many there are.

    Args:
        threshold: boxes count whose score exceeds it.
        least: intersection over union with a box of the same name.
    """
    last, seen = (_above(boxes, threshold) for boxes in (descendant.last_step, descendant.pixels))
    return len(last) - len(_unmatched(last, seen, least)), len(last)


def _above(boxes: list[dict], threshold: float) -> list[dict]:
    return [box for box in boxes if box["score"] > threshold]


def _unmatched(boxes: list[dict], others: list[dict], least: float = 0.5) -> list[dict]:
    """Boxes that overlap with no other one of the same name."""
    return [
        box
        for box in boxes
        if not any(
            box["name"] == other["name"] and _overlap(box["bbox"], other["bbox"]) >= least for other in others
        )
    ]


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    sides = [min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    shared = max(0.0, sides[0]) * max(0.0, sides[1])
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def encode_ratio_page(
    rows: Sequence[tuple[Descendant, Sequence[Descendant]]],
    ratios: Sequence[float],
    similarities: np.ndarray,
    threshold: float,
) -> Figure:
    """The page: similarity to the reference by encode ratio, and a strip of images for each reference.

    Args:
        rows: references, each with what was drawn from it, one for each ratio.
        ratios: share of the steps that was made.
        similarities: (references, ratios), of as many references as were measured.
        threshold: boxes are shown whose score exceeds it.
    """
    columns, side = len(ratios) + 1, PAGE_WIDTH / (len(ratios) + 1)
    heights = (1.6, len(rows) * (side + 0.2))
    with style():
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.4), layout="constrained")
        title = (
            "Encode ratio: solid boxes from the last step, dashed ones from the picture, encoded again\n"
            "(named only where the last step has no such box)"
        )
        figure.suptitle(title, fontsize=8, fontweight="bold")
        top, below = figure.subfigures(2, 1, height_ratios=heights)
        axes = top.subplots()
        axes.plot(ratios, similarities.T, color="#BBBBBB", linewidth=0.6)
        axes.plot(ratios, similarities.mean(axis=0), color=PALETTE[1], marker="o", markersize=3)
        axes.set_xlabel("encode ratio, share of the steps that is made")
        axes.set_ylabel("correlation with the\n" + f"reference (mean of {len(similarities)})")
        panels = below.subplots(len(rows), columns, squeeze=False)
        for line, (real, drawn) in zip(panels, rows, strict=True):
            for axes, it in zip(line, (real, *drawn), strict=True):
                _show(axes, it, threshold)
        for axes, name in zip(panels[0], ("real", *(f"{ratio:g}" for ratio in ratios)), strict=True):
            axes.set_title(name)
    return figure


def _show(axes: Axes, it: Descendant, threshold: float) -> None:
    """A picture with both kinds of boxes; the pixels' are named where the last step has no such box."""
    show_image(axes, it.image)
    last, seen = _above(it.last_step, threshold), _above(it.pixels, threshold)
    other = _unmatched(seen, last)
    same = [box for box in seen if box not in other]
    real = not it.last_step
    for boxes, named, colour, below in (
        (same, False, PIXELS, False),
        (last, True, LAST, False),
        (other, True, PIXELS, not real),
    ):
        draw_instances(
            axes,
            sorted(boxes, key=lambda box: box["score"]),  # the most certain name lies on top
            it.image.shape[:2],
            label=_name if named else None,
            linestyle="-" if boxes is last else "--",
            fontsize=4,
            colours=[colour],
            below=below,
        )


def _name(_: int, box: dict) -> str:
    return as_text(f"{box['name']} {box['score']:.2f}")
