"""A page on one filter: how much of each frequency group it kept, and images with kept and rejected boxes."""

import csv
import random
import textwrap
from collections import defaultdict
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.data.images import image_name
from gen4det.evaluation.gallery import (
    GeneratedSet,
    choose_rejected,
    in_words,
    reason_counts,
    size_of,
    write_below,
)
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import GREY, PAGE_WIDTH, PALETTE, style

IMAGES, COLUMNS = 12, 4
KEPT_COLOUR = PALETTE[3]
REJECTED_COLOURS = (PALETTE[2], PALETTE[5], PALETTE[4], PALETTE[7], PALETTE[1], PALETTE[6])
"""Of the most frequent reasons; the others share grey."""


def read_fractions(path: str | Path) -> list[dict]:
    """Rows of filter.csv for all labels and per frequency group.

    Raises:
        InputError: missing, or not a table of the filter.
    """
    try:
        with open(path, newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("level") in ("all", "frequency")]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected filter.csv") from error
    if not rows or "kept_fraction" not in rows[0]:
        raise InputError(f"{path}: not a table of kept fractions")
    return rows


def choose_images(generated: GeneratedSet, count: int, seed: int) -> list[int]:
    """Ids of images to show, sorted: half of them with rejected labels, in turn for each reason."""
    chosen = set(choose_rejected(generated, ceil(count / 2), seed))
    others = sorted(set(generated.images) - chosen)
    random.Random(seed_for(seed, "filter page")).shuffle(others)
    return sorted(chosen | set(others[: count - len(chosen)]))


def filter_page(generated: GeneratedSet, fractions: list[dict], *, seed: int = 0) -> Figure:
    """The page.

    Args:
        generated: a synthetic set with its rejected labels.
        fractions: as `read_fractions` gives them.
        seed: which images are shown.
    """
    ids = choose_images(generated, IMAGES, seed)
    lines = ceil(len(ids) / COLUMNS)
    tallest = max(height / width for height, width in (size_of(generated, image_id) for image_id in ids))
    heights = (1.5, lines * (min(tallest, 2) * PAGE_WIDTH / COLUMNS + 0.36))
    reasons = [reason for reason, _ in reason_counts(generated)]
    colours = dict(zip(reasons, REJECTED_COLOURS, strict=False))
    with style():
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.3), layout="constrained")
        figure.suptitle(f"{generated.name}: what the filter keeps", fontsize=8, fontweight="bold")
        bars, images = figure.subfigures(2, 1, height_ratios=heights)
        draw_fractions(bars.subplots(), fractions, reasons, colours)
        panels = images.subplots(lines, COLUMNS, squeeze=False)
        for panel, image_id in zip(panels.flat, ids, strict=False):
            draw_verdicts(panel, generated, image_id, colours)
        for panel in panels.flat[len(ids) :]:
            panel.set_axis_off()
    return figure


def draw_fractions(axes: Axes, rows: list[dict], reasons: list[str], colours: dict[str, str]) -> None:
    """One bar of length 1 per group: share of its labels that were kept, and that were not, by reason."""
    names = [f"{row['name']} ({int(row['generated'])})" for row in rows]
    parts = [("kept", "kept", KEPT_COLOUR)]
    drawn = [reason for reason in reasons if reason in rows[0]]  # others concern real objects alone
    parts += [(in_words(reason), reason, colours.get(reason, GREY)) for reason in drawn]
    left = [0.0] * len(rows)
    for label, key, colour in parts:
        widths = [int(row[key]) / max(1, int(row["generated"])) for row in rows]
        axes.barh(names, widths, left=left, color=colour, label=textwrap.shorten(label, 40))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the labels drawn (their number in brackets)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def draw_verdicts(axes: Axes, generated: GeneratedSet, image_id: int, colours: dict[str, str]) -> None:
    """An image with its kept boxes, solid, and its rejected ones, dashed, in the colour of their reason."""
    store, record = generated.images[image_id]
    size = size_of(generated, image_id)
    show_image(axes, store.image(image_name(record)))

    def name(_: int, label: dict) -> str:
        return generated.names[label["category_id"]]

    kept = [_box_only(label) for label in generated.kept.get(image_id, [])]
    draw_instances(axes, kept, size, label=name, colours=[KEPT_COLOUR])
    by_reason: dict[str, list[dict]] = defaultdict(list)
    for label in generated.rejected.get(image_id, []):
        by_reason[label["reason"]].append(_box_only(label))
    lines = []
    for reason, labels in by_reason.items():
        colour = colours.get(reason, GREY)
        draw_instances(axes, labels, size, label=name, linestyle="--", colours=[colour])
        who = ", ".join(generated.names[label["category_id"]] for label in labels)
        lines += textwrap.wrap(f"{in_words(reason)}: {who}", 50, subsequent_indent="  ")
    write_below(axes, lines)


def _box_only(label: dict) -> dict:
    return {key: value for key, value in label.items() if key != "segmentation"}
