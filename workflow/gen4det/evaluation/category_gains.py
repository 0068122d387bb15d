"""Average precision of every category, and what an arm gains in it, by its number of training images."""

import csv
import io
import math
from collections import defaultdict
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from gen4det.evaluation.plotting import GREY, MARKERS, PAGE_WIDTH, PALETTE, as_text, style
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import Metrics

FACTS = ("id", "name", "images_train", "images_val", "instances_val")
PANELS = 4
"""Panels beside each other, where each arm has its own."""


def category_rows(settings: StudySettings, metrics: Metrics) -> list[dict]:
    """One row for each category, by its number of training images.

    Args:
        metrics: by arm and seed, see `read_metrics`.

    Returns:
        Rows of FACTS, "kind" ("mask" where masks were measured, else "box"), "<arm>": mean AP over its seeds
        on 0-100 (None: not measured, or no such object), and "<arm> gain": mean change against the arm it is
        compared with, over the seeds that both have.
    """
    measured = [it for seeds in metrics.values() for it in seeds.values() if "refused" not in it]
    kind = "mask" if any(it["mask"] for it in measured) else "box"
    found: dict[int, dict] = {}
    values: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for arm, seeds in metrics.items():
        for seed, contents in seeds.items():
            for entry in contents.get("per_category", ()):
                found.setdefault(entry["id"], {fact: entry.get(fact) for fact in FACTS})
                if entry[f"{kind}_AP"] is not None:
                    values[entry["id"], arm][seed] = entry[f"{kind}_AP"]
    rows = []
    for identifier, facts in sorted(found.items(), key=lambda it: (it[1]["images_train"] or 0, it[0])):
        row = facts | {"kind": kind}
        for arm in settings.arms:
            own, other = values[identifier, arm], values[identifier, settings.baseline_of(arm)]
            row[arm] = fmean(own.values()) if own else None
            if settings.baseline_of(arm) != arm:
                changes = [own[seed] - other[seed] for seed in own.keys() & other.keys()]
                row[f"{arm} gain"] = fmean(changes) if changes else None
        rows.append(row)
    return rows


def to_csv(rows: list[dict]) -> str:
    """The rows as CSV, numbers with four decimals, undefined ones empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [*FACTS, "kind"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{it:.4f}" if isinstance(it, float) else it for key, it in row.items()})
    return stream.getvalue()


def gain_figure(settings: StudySettings, rows: list[dict]) -> Figure:
    """A point for each category and arm: gain in AP against training images, on a logarithmic axis.

    Arms share one panel while there is a colour for each; of more, each gets a panel of its own.
    """
    arms = [arm for arm in settings.arms if settings.baseline_of(arm) != arm]
    kind = rows[0]["kind"] if rows else "box"
    together = len(arms) < len(PALETTE)
    columns = 1 if together else PANELS
    lines = 1 if together else math.ceil(len(arms) / PANELS)
    with style():
        size = (5, 3 + 0.13 * len(arms)) if together else (PAGE_WIDTH, 1.25 * lines + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
        figure.supxlabel("training images of the category", fontsize=7)
        figure.supylabel(f"change of {kind} AP", fontsize=7)
        grid[0].set_xscale("symlog", linthresh=1)
        grid[0].xaxis.set_major_formatter(ScalarFormatter())
        for axes in grid[: 1 if together else len(arms)]:
            axes.axhline(0, color=GREY, linewidth=0.6)
        for number, arm in enumerate(arms):
            axes, style_of = (grid[0], number) if together else (grid[number], 0)
            points = [(row["images_train"] or 0, row[f"{arm} gain"]) for row in rows]
            points = [(images, gain) for images, gain in points if gain is not None]
            axes.plot(
                *(zip(*points, strict=True) if points else ((), ())),
                MARKERS[style_of],
                color=PALETTE[style_of + 1],
                label=as_text(settings.label(arm)),
                markersize=3 if together else 2,
            )
            if not together:
                axes.set_title(as_text(settings.label(arm)), loc="left", fontsize=6)
        for axes in grid[len(arms) :] if not together else ():
            axes.set_axis_off()
        for axes in grid[max(0, len(arms) - columns) :]:
            axes.tick_params(labelbottom=True)  # no panel is below
        if arms and together:
            figure.legend(loc="outside lower center", frameon=False, ncols=2)
    return figure
