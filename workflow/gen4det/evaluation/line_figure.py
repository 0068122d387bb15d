"""The figure of a study that follows one setting: lines over its values, the papers' dashed below ours."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gen4det.evaluation.plotting import COLUMN_WIDTH, GREY, MARKERS, PAGE_WIDTH, PALETTE, heading, style
from gen4det.evaluation.study_settings import LinePanel, StudySettings
from gen4det.evaluation.study_table import Metrics, present_seeds, values_by_arm
from gen4det.evaluation.table_text import metric_name, scale_note

VALUES_PER_COLUMN = 12
"""Values of settings, over all panels, whose labels still read at the width of one column."""


def line_figure(settings: StudySettings, metrics: Metrics) -> Figure:
    """Average precision against the value of a setting, one column per panel and metric.

    Small markers are seeds, lines go through their means; published numbers are dashed and stand in a row
    below on an axis of their own, because they belong to another scale. Arms without results leave a gap and
    are named.
    """
    values = values_by_arm(settings, metrics)
    panels = [(panel, metric) for panel in settings.lines for metric in settings.metrics]
    published = any(_published(settings, panel, metric) for panel, metric in panels)
    names = list(dict.fromkeys(name for panel in settings.lines for name in panel.lines))
    wide = sum(len(_values(panel)) for panel, _ in panels) > VALUES_PER_COLUMN
    characters = 110 if wide else 58
    below = max(10, characters * 2 // 3 // len(panels))  # numbers beside the panels take their room
    note = "" if scale_note(settings) == settings.scale else scale_note(settings)
    with style():
        title = heading(settings.title, note, _missing(settings, metrics), characters=characters)
        height = (3.4 if published else 2.3) + 0.13 * title.count("\n")
        figure = Figure(figsize=(PAGE_WIDTH if wide else COLUMN_WIDTH, height), layout="constrained")
        one_metric = "row" if len(settings.metrics) == 1 else False
        axes = figure.subplots(1 + published, len(panels), squeeze=False, sharex="col", sharey=one_metric)
        for column, (panel, metric) in enumerate(panels):
            _draw_measured(axes[0, column], values, panel, metric, names)
            axes[0, column].set_title(metric_name(metric), loc="left", fontweight="bold")
            if published:
                _draw_published(axes[1, column], settings, panel, metric, names)
            axes[-1, column].set_xlabel(heading(panel.x, characters=below))
        axes[0, 0].set_ylabel(f"measured AP\n({settings.scale})")
        if published:
            axes[1, 0].set_ylabel("published AP")
        figure.align_ylabels(axes[:, 0])
        figure.suptitle(title, fontsize=7)
        legend = _legend(settings, names, published)
        figure.legend(handles=legend, loc="outside lower center", frameon=False, ncols=3 if wide else 2)
    return figure


def _draw_measured(
    axes: Axes, values: dict[str, pd.DataFrame], panel: LinePanel, metric: str, names: list[str]
) -> None:
    for name, points in panel.lines.items():
        number = names.index(name)
        means = []
        for x, arm in sorted(points):
            measured = values[arm][metric]
            means.append((x, measured.mean(skipna=False)))
            seen = measured.dropna()
            small = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.6, "linestyle": ""}
            axes.plot([x] * len(seen), seen, _marker(number), color=_colour(number), **small)
        axes.plot(*zip(*means, strict=True), color=_colour(number), linewidth=1.2)
    _finish(axes, panel)


def _draw_published(
    axes: Axes, settings: StudySettings, panel: LinePanel, metric: str, names: list[str]
) -> None:
    for name, points in _published(settings, panel, metric).items():
        number = names.index(name)
        axes.plot(
            *zip(*points, strict=True), _marker(number), linestyle="--", linewidth=1.0, color=_colour(number),
            markerfacecolor="none", markersize=4, markeredgewidth=0.8,
        )  # fmt: skip
    _finish(axes, panel)


def _published(
    settings: StudySettings, panel: LinePanel, metric: str
) -> dict[str, list[tuple[float, float]]]:
    """Points of each line for which a number is printed."""
    found = {}
    for name, points in panel.lines.items():
        printed = [(x, settings.published_value(arm, metric)) for x, arm in sorted(points)]
        if known := [(x, value) for x, value in printed if value is not None]:
            found[name] = known
    return found


def _finish(axes: Axes, panel: LinePanel) -> None:
    if panel.logarithmic:
        axes.set_xscale("log")
        axes.minorticks_off()
    values = _values(panel)
    axes.set_xticks(values, [f"{x:g}" for x in values])
    axes.margins(y=0.15)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", linewidth=0.3, color="#dddddd")
    axes.set_axisbelow(True)


def _values(panel: LinePanel) -> list[float]:
    """Values of the setting that a panel shows."""
    return sorted({x for points in panel.lines.values() for x, _ in points})


def _missing(settings: StudySettings, metrics: Metrics) -> str:
    """Which arms lack which seeds, in words; empty if none."""
    drawn = dict.fromkeys(
        arm for panel in settings.lines for points in panel.lines.values() for _, arm in sorted(points)
    )
    there = {arm: present_seeds(settings, metrics[arm]) for arm in drawn}
    lacking = {arm: [str(seed) for seed in settings.seeds if seed not in there[arm]] for arm in drawn}
    texts = [f"{settings.label(arm)} (seed {', '.join(seeds)})" for arm, seeds in lacking.items() if seeds]
    return f"missing: {'; '.join(texts)}" if texts else ""


def _legend(settings: StudySettings, names: list[str], published: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=_colour(n), marker=_marker(n), markersize=4, linewidth=1.2, label=name)
        for n, name in enumerate(names)
    ]
    if len(settings.seeds) > 1:
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, label="mean over seeds"))
    if published:
        hollow = {"marker": "o", "markerfacecolor": "none", "markersize": 4}
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="published", **hollow))
    return handles


def _colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]


def _marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]
