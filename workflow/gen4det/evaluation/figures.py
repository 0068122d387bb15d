"""The figure of a study: what was measured, seed by seed, and below it, on axes of their own, the papers."""

import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gen4det.evaluation.line_figure import line_figure
from gen4det.evaluation.plotting import COLUMN_WIDTH, GREY, MARKERS, PAGE_WIDTH, PALETTE, heading, style
from gen4det.evaluation.row_figure import row_figure
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import Metrics, Row, study_rows, values_by_arm
from gen4det.evaluation.table_text import scale_note

POINTS_PER_COLUMN = 16
"""Arms x metrics that still read at the width of one column."""


def study_figure(settings: StudySettings, metrics: Metrics) -> Figure:
    """Average precision per metric and arm.

    Left masks, right boxes, as far as the study asks for them. Small markers are seeds, the wide line their
    mean; published numbers are hollow and stand in a row below, because they belong to another scale.
    A study that asks for lines gets them instead; one with more arms than colours, or with rows that papers
    alone have, a line for each row.
    """
    if settings.lines:
        return line_figure(settings, metrics)
    if len(settings.arms) > len(PALETTE) or settings.published_only:
        return row_figure(settings, metrics)
    rows = study_rows(settings, metrics)
    kinds = [k for k in ("mask", "box") if any(m.startswith(f"{k}_") for m in settings.metrics)]
    groups = {kind: [m for m in settings.metrics if m.startswith(f"{kind}_")] for kind in kinds}
    published = any(cell.published is not None for row in rows for cell in row.cells.values())
    wide = len(settings.arms) * len(settings.metrics) > POINTS_PER_COLUMN
    with style():
        legend = _legend(settings, rows, published)
        columns = 3 if wide else 2
        note = "" if scale_note(settings) == settings.scale else scale_note(settings)
        title = heading(settings.title, note, characters=110 if wide else 58)
        height = (3.0 if published else 2.0) + 0.13 * (math.ceil(len(legend) / columns) + title.count("\n"))
        figure = Figure(figsize=(PAGE_WIDTH if wide else COLUMN_WIDTH, height), layout="constrained")
        axes = figure.subplots(
            1 + published,
            len(kinds),
            squeeze=False,
            sharex="col",
            sharey="row",
            width_ratios=[len(groups[kind]) for kind in kinds],
            height_ratios=[1.6, 1] if published else [1],
        )
        for column, kind in enumerate(kinds):
            _panel(axes[0, column], rows, groups[kind], _draw_measured(settings, metrics))
            axes[0, column].set_title(kind, loc="left", fontweight="bold")
            if published:
                _panel(axes[1, column], rows, groups[kind], _draw_published)
            axes[-1, column].set_xticks(range(len(groups[kind])), [m.partition("_")[2] for m in groups[kind]])
        axes[0, 0].set_ylabel(f"measured AP\n({settings.scale})")
        if published:
            axes[1, 0].set_ylabel("published AP")
        figure.align_ylabels(axes[:, 0])
        figure.suptitle(title, fontsize=7)
        figure.legend(handles=legend, loc="outside lower center", frameon=False, ncols=columns)
    return figure


Draw = Callable[[Axes, float, float, Row, str, str, str], None]


def _panel(axes: Axes, rows: list[Row], metrics: list[str], draw: Draw) -> None:
    """One group per metric; in each, the arms side by side in their order."""
    step = 0.72 / len(rows)
    for position, metric in enumerate(metrics):
        for number, row in enumerate(rows):
            x = position + (number - (len(rows) - 1) / 2) * step
            draw(axes, x, step, row, metric, PALETTE[number], MARKERS[number])
    axes.set_xlim(-0.6, len(metrics) - 0.4)
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", linewidth=0.3, color="#dddddd")
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0)


def _draw_measured(settings: StudySettings, metrics: Metrics) -> Draw:
    values = values_by_arm(settings, metrics)

    def draw(axes: Axes, x: float, step: float, row: Row, metric: str, colour: str, marker: str) -> None:
        # Seeds stand beside each other, so that equal values stay visible; a missing one leaves its place.
        places = {seed: place for place, seed in enumerate(settings.seeds)}
        for seed, value in values[row.arm][metric].dropna().items():
            offset = (places[seed] - (len(places) - 1) / 2) * step / max(4, len(places))
            size = 3 if len(places) > 1 else 4
            axes.plot(x + offset, value, marker, color=colour, markersize=size, markeredgewidth=0, alpha=0.75)
        mean = row.cells[metric].value.mean
        if mean is not None and len(row.present) > 1:
            axes.plot([x - 0.4 * step, x + 0.4 * step], [mean, mean], color=colour, linewidth=1.2)

    return draw


def _draw_published(
    axes: Axes, x: float, step: float, row: Row, metric: str, colour: str, marker: str
) -> None:
    value = row.cells[metric].published
    if value is not None:
        axes.plot(x, value, marker, color=colour, markerfacecolor="none", markersize=4, markeredgewidth=0.8)


def _legend(settings: StudySettings, rows: list[Row], published: bool) -> list[Line2D]:
    handles = []
    for number, row in enumerate(rows):
        handles.append(_handle(row.caption, PALETTE[number], MARKERS[number]))
    if len(settings.seeds) > 1:
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, label="mean over seeds"))
    if published:
        handles.append(_handle("published", GREY, "o", markerfacecolor="none"))
    return handles


def _handle(label: str, colour: str, marker: str, **more: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, markersize=4, label=label, **more)
