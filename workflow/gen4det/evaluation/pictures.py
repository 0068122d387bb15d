"""Instances drawn on an image: filled masks with outlines, boxes, names."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from gen4det.data.masks import rle_to_mask, segmentation_to_rle
from gen4det.evaluation.plotting import PALETTE

INSTANCE_COLOURS = PALETTE[1:]
"""Black would not show on dark images."""


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Show an image, uint8 (H, W, 3) RGB, without ticks.

    Data coordinates are pixels, (0, 0) is the upper left corner of the image, as in COCO's boxes.
    """
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def draw_instances(
    axes: Axes,
    instances: Sequence[dict],
    size: tuple[int, int],
    *,
    label: Callable[[int, dict], str] | None = None,
    linestyle: str = "-",
    fill: float = 0.35,
    fontsize: float = 5,
    colours: Sequence[str] = INSTANCE_COLOURS,
    below: bool = False,
) -> None:
    """Draw instances over what `show_image` shows, by default each in a colour of its own.

    Args:
        instances: annotation records: "segmentation" (polygons or run-length mask), "bbox" [x, y, w, h] in
            pixels; either may be missing.
        size: (height, width) of the image in pixels.
        label: text of an instance from its position and record; None draws no text.
        linestyle: of the box, e.g. "--".
        fill: opacity of the mask in [0, 1].
        fontsize: of the labels, in points.
        colours: of the instances, in turn.
        below: labels stand below the boxes, where those above belong to somebody else.
    """
    height, width = size
    for position, instance in enumerate(instances):
        colour = colours[position % len(colours)]
        if instance.get("segmentation"):
            mask = rle_to_mask(segmentation_to_rle(instance["segmentation"], height, width))
            _draw_mask(axes, mask, colour, fill)
        if instance.get("bbox"):
            x, y, w, h = instance["bbox"]
            axes.add_patch(
                Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=0.7, linestyle=linestyle)
            )
            if label is not None:
                _write(axes, x, y + h if below else y, label(position, instance), colour, fontsize, below)


def _draw_mask(axes: Axes, mask: np.ndarray, colour: str, fill: float) -> None:
    height, width = mask.shape
    overlay = np.zeros((height, width, 4))
    overlay[..., :3] = to_rgb(colour)
    overlay[..., 3] = mask * fill
    axes.imshow(overlay, extent=(0, width, height, 0), interpolation="nearest")
    # With a margin of one pixel the outline also closes along the border of the image.
    padded = np.pad(mask, 1).astype(float)
    columns, rows = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
    if mask.any():
        axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=0.8)


def _write(
    axes: Axes, x: float, y: float, text: str, colour: str, fontsize: float, below: bool = False
) -> None:
    # Outside the box; inside it where there is no room, and no further right than the image.
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    at_the_edge = x > 0.75 * right
    upwards = y > 0.92 * bottom if below else y > 0.08 * bottom
    axes.text(
        right if at_the_edge else max(x, 0),
        min(max(y, 0), bottom),
        text,
        color="white",
        fontsize=fontsize,
        horizontalalignment="right" if at_the_edge else "left",
        verticalalignment="bottom" if upwards else "top",
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.12", "alpha": 0.85},
    )
