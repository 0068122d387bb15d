"""The figure of a study with more arms than colours, or with rows that papers alone have: a line for each,
a panel for each metric."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gen4det.evaluation.plotting import GREY, PAGE_WIDTH, PALETTE, heading, style
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import Metrics, Row, published_rows, study_rows, values_by_arm
from gen4det.evaluation.table_text import metric_name, scale_note

LINE = 0.145
"""Inches between two arms."""
COLOUR = PALETTE[1]


def row_figure(settings: StudySettings, metrics: Metrics) -> Figure:
    """Average precision, one arm below the other in their order, so that names stand where they belong.

    Masks above boxes, as far as the study asks for them. Points are seeds, the upright line their mean, the
    dashed line the mean of the row that is compared with, where all rows have the same one. Published numbers
    are hollow and stand below, on axes of their own, because they belong to another scale.
    """
    rows = study_rows(settings, metrics)
    kinds = [k for k in ("mask", "box") if any(m.startswith(f"{k}_") for m in settings.metrics)]
    groups = {kind: [m for m in settings.metrics if m.startswith(f"{kind}_")] for kind in kinds}
    printed = [
        row
        for row in published_rows(settings, rows)
        if any(cell.published is not None for cell in row.cells.values())
    ]
    blocks = [(kind, shown) for shown in (rows, printed) if shown for kind in kinds]
    columns = max(map(len, groups.values()))
    note = "" if scale_note(settings) == settings.scale else scale_note(settings)
    with style():
        title = heading(settings.title, note, characters=110)
        heights = [len(shown) + 1 for _, shown in blocks]
        figure = Figure(
            figsize=(PAGE_WIDTH, LINE * sum(heights) + 0.3 * len(blocks) + 0.7), layout="constrained"
        )
        grid = figure.subplots(len(blocks), columns, squeeze=False, sharey="row", height_ratios=heights)
        values = values_by_arm(settings, metrics)
        for line, (kind, shown) in zip(grid, blocks, strict=True):
            measured = shown is rows
            for axes, metric in zip(line, groups[kind], strict=False):
                _measured(axes, settings, rows, values, metric) if measured else _published(
                    axes, shown, metric
                )
                _finish(axes, shown, metric_name(metric))
            panels, unused = line[: len(groups[kind])], line[len(groups[kind]) :]
            empty = [axes for axes in panels if not measured and not axes.lines]  # no paper prints the metric
            for axes in empty:
                # The first panel carries the names of all rows.
                axes.set_visible(axes is line[0] and len(empty) < len(panels))
            for axes in unused:
                axes.set_axis_off()
            line[0].set_ylabel(f"measured ({settings.scale})" if measured else "published")
        figure.align_ylabels(grid[:, 0])
        figure.suptitle(title, fontsize=7)
        figure.legend(
            handles=_legend(settings, bool(printed)), loc="outside lower center", frameon=False, ncols=4
        )
    return figure


def _measured(axes: Axes, settings: StudySettings, rows: list[Row], values: dict, metric: str) -> None:
    compared = _compared_with(settings)
    for number, row in enumerate(rows):
        colour = PALETTE[0] if row.arm == compared else COLOUR
        seen = values[row.arm][metric].dropna()
        axes.plot(seen, [number] * len(seen), "o", color=colour, markersize=2.6, markeredgewidth=0, alpha=0.6)
        mean = row.cells[metric].value.mean
        if mean is not None and len(row.present) > 1:
            axes.plot([mean, mean], [number - 0.38, number + 0.38], color=colour, linewidth=1.2)
        if mean is not None and row.arm == compared:
            axes.axvline(mean, color=GREY, linewidth=0.5, linestyle="--", zorder=0)


def _compared_with(settings: StudySettings) -> str | None:
    """The one arm that all others are compared with; None if there are several."""
    baselines = {settings.baseline_of(arm) for arm in settings.arms}
    return baselines.pop() if len(baselines) == 1 else None


def _published(axes: Axes, rows: list[Row], metric: str) -> None:
    for number, row in enumerate(rows):
        value = row.cells[metric].published
        if value is not None:
            axes.plot(
                value, number, "o", color=GREY, markerfacecolor="none", markersize=3.6, markeredgewidth=0.8
            )


def _finish(axes: Axes, rows: list[Row], title: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_yticks(range(len(rows)), [row.caption for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", linewidth=0.3, color="#dddddd")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _legend(settings: StudySettings, published: bool) -> list[Line2D]:
    point = {"linestyle": "", "marker": "o", "markersize": 3}
    handles = [
        Line2D([], [], color=COLOUR, label="a seed" if len(settings.seeds) > 1 else "measured", **point)
    ]
    if len(settings.seeds) > 1:
        handles.append(Line2D([], [], color=COLOUR, linewidth=1.2, label="mean over seeds"))
    compared = _compared_with(settings)
    if compared:
        label = f"mean of: {settings.label(compared)}"
        handles.append(Line2D([], [], color=GREY, linewidth=0.5, linestyle="--", label=label))
    if published:
        handles.append(Line2D([], [], color=GREY, markerfacecolor="none", label="published", **point))
    return handles
