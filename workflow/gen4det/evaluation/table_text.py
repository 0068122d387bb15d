"""The table of a study for people: Markdown that also reads well in a terminal, HTML, and LaTeX."""

from collections.abc import Mapping
from html import escape

from gen4det.evaluation.set_columns import COLUMNS, SetValues
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import Cell, Row, Spread, published_rows, without_negative_zero

SCALE_NOTES = {
    "miniature": "miniature (a small rendered world, small models; not comparable with published numbers)"
}
"""How a scale is spelled out wherever its numbers are shown; others by their own name."""
NOTHING = "–"
WORDS = (
    "Is a change more than chance? Intervals at 95%: categories resampled where a metric is their mean AP, "
    "seeds by Student's distribution (evaluation/differences.py); of twenty rows without any effect one "
    "would be called so."
)
ONE_SEED = "One seed cannot say whether a change is more than chance."


# --- Markdown ---------------------------------------------------------------------------------------


def to_markdown(settings: StudySettings, rows: list[Row]) -> str:
    """Three tables below each other, aligned so that they also read well in a terminal."""
    names = [metric_name(metric) for metric in settings.metrics]
    parts = [
        f"# {settings.title} ({settings.scale})",
        _about(settings),
        f"Average precision (0-100){_over(settings)}:",
    ]
    header, lines = ["arm", "seeds", *names], [[row.label, row.seeds, *_values(row)] for row in rows]
    parts.append(_table(header, lines, names=2))
    parts += ["\n".join(f"- {note}" for note in _refusals(rows))] if _refusals(rows) else []
    others = [row for row in rows if settings.baseline_of(row.arm) != row.arm]
    if others and all(settings.baseline_of(row.arm) in settings.arms for row in others):
        lines = [[row.label, f"{row.paired}/{len(settings.seeds)}", *_deltas(row)] for row in others]
        parts.append(f"Change against {_baseline(settings)}, over the seeds that both have:")
        parts.append(_table(header, lines, names=2))
        parts.append(about_chance(others))
        if lines := in_words(settings, others):
            parts.append("\n".join(f"- {line}" for line in lines))
    printed = published_rows(settings, rows)
    if printed:
        parts.append("Published, in brackets the change against the baseline of the same paper:")
        parts.append(_table(["arm", *names], [[row.label, *_published(row)] for row in printed]))
        parts.append("\n".join(f"- {source}" for source in dict.fromkeys(row.source for row in printed)))
    return "\n\n".join(parts) + "\n"


def sets_table(settings: StudySettings, rows: list[Row], sets: Mapping[str, SetValues]) -> str:
    """Markdown: what the generated images behind each row are, and what they cost."""
    lines = [
        [row.label, *map(plain, sets[row.arm].values.values()), ", ".join(sets[row.arm].devices)]
        for row in rows
        if row.arm in sets
    ]
    about = (
        "Generated images behind each row. Seconds are wall clock of all that was made for them, without "
        f"the table's trainings; hours per point of {metric_name(settings.metrics[0])} where the gain is "
        "more than chance:"
    )
    return f"{about}\n\n{_table(['arm', *COLUMNS.values(), 'on'], lines)}\n"


def plain(value: float | None) -> str:
    """A value of a set in three digits; whole numbers as they are."""
    return NOTHING if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"


def in_words(settings: StudySettings, rows: list[Row]) -> list[str]:
    """A sentence for each row about its change in the table's first metric; none where all have one seed."""
    return [_in_words(settings, row) for row in rows] if _several(rows) else []


def about_chance(rows: list[Row]) -> str:
    """How the table tells a change from chance, or that it cannot."""
    return WORDS if _several(rows) else ONE_SEED


def _several(rows: list[Row]) -> bool:
    return any(row.paired > 1 for row in rows)


def _in_words(settings: StudySettings, row: Row) -> str:
    metric = settings.metrics[0]
    cell, baseline = row.cells[metric], settings.baseline_of(row.arm)
    about = f"{row.label}: {metric_name(metric)}"
    if cell.delta.mean is None:
        return f"{about} is not known beside that of {settings.label(baseline)}"
    changed = f"{about} changes by {signed(cell.delta.mean)} against {settings.label(baseline)}"
    if cell.interval is None:
        return f"{changed}; one seed: could be chance"
    where = cell.interval
    what = "more than chance" if where.told else "could be chance"
    alone = " alone: which categories were asked about is not in it" if where.categories is None else ""
    return f"{changed} ({signed(where.low)} to {signed(where.high)}, {where.seeds} seeds{alone}): {what}"


def scale_note(settings: StudySettings) -> str:
    """The scale in words."""
    return SCALE_NOTES.get(settings.scale, settings.scale)


def metric_name(metric: str) -> str:
    """ "mask_APr" -> "mask APr"."""
    return metric.replace("_", " ")


def _about(settings: StudySettings) -> str:
    facts = {"Scale": scale_note(settings), "Data": settings.dataset, "Detector": settings.detector}
    return "\n".join(f"- {name}: {text}" for name, text in facts.items() if text)


def _refusals(rows: list[Row]) -> list[str]:
    """Why seeds are missing, an arm a line."""
    return [f"{row.label}: not trained: {row.refusal}" for row in rows if row.refused]


def _baseline(settings: StudySettings) -> str:
    """What changes are measured against, in words."""
    baselines = {settings.baseline_of(arm) for arm in settings.arms}
    if len(baselines) > 1:
        return f"{settings.baseline} of the same data"
    return settings.label(settings.baseline) if settings.baseline in settings.arms else "the baseline"


def _over(settings: StudySettings) -> str:
    return ", mean ± standard deviation over seeds" if len(settings.seeds) > 1 else ""


def _values(row: Row) -> list[str]:
    return [number(cell.value) for cell in row.cells.values()]


def _deltas(row: Row) -> list[str]:
    return [number(cell.delta, is_signed=True) for cell in row.cells.values()]


def _published(row: Row) -> list[str]:
    texts = []
    for cell in row.cells.values():
        text = NOTHING if cell.published is None else f"{cell.published:.1f}"
        texts.append(text if cell.published_delta is None else f"{text} ({signed(cell.published_delta)})")
    return texts


def number(spread: Spread, *, is_signed: bool = False) -> str:
    """Mean and, over several seeds, standard deviation, with a decimal."""
    if spread.mean is None:
        return NOTHING
    text = signed(spread.mean) if is_signed else f"{spread.mean:.1f}"
    return text if spread.deviation is None else f"{text} ± {spread.deviation:.1f}"


def signed(value: float) -> str:
    """A change with a decimal and its sign."""
    return f"{without_negative_zero(value, 1):+.1f}"


def _table(header: list[str], lines: list[list[str]], *, names: int = 1) -> str:
    """A Markdown table; the first `names` columns flush left, the numbers flush right."""
    cells = [[text.replace("|", "\\|") for text in line] for line in [header, *lines]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    aligns = ["<" if column < names else ">" for column in range(len(header))]
    columns = list(zip(aligns, widths, strict=True))
    rows = [
        " | ".join(f"{text:{align}{width}}" for text, (align, width) in zip(line, columns, strict=True))
        for line in cells
    ]
    rule = "|".join(f":{'-' * (w + 1)}" if align == "<" else f"{'-' * (w + 1)}:" for align, w in columns)
    return "\n".join([f"| {rows[0]} |", f"|{rule}|", *(f"| {row} |" for row in rows[1:])])


# --- HTML -------------------------------------------------------------------------------------------


def to_html(settings: StudySettings, rows: list[Row]) -> str:
    """A table for the first page of the report; in brackets the change against the baseline."""
    names = ["Training data", "Seeds", *(metric_name(metric) for metric in settings.metrics)]
    lines = [
        '<table class="study">',
        f"<caption>{escape(settings.title)}. {escape(_caption(settings))}</caption>",
        f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>",
    ]
    for row in rows:
        changes = [
            "" if cell.delta.mean is None else f" ({signed(cell.delta.mean)})" for cell in row.cells.values()
        ]
        texts = [row.label, row.seeds, *map("".join, zip(_values(row), changes, strict=True))]
        lines.append(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in texts)}</tr>")
    notes = [f'<p class="study">{escape(note)}</p>' for note in _refusals(rows)]
    return "\n".join([*lines, "</table>", *notes]) + "\n"


# --- LaTeX ------------------------------------------------------------------------------------------


def to_latex(settings: StudySettings, rows: list[Row]) -> str:
    """A table environment for the package booktabs; measured and published rows in blocks of their own."""
    names = [_latex_metric(metric) for metric in settings.metrics]
    width = len(names) + 2
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_escape(settings.title)}. {_escape(_caption(settings))}}}",
        f"  \\begin{{tabular}}{{ll{'r' * len(names)}}}",
        "    \\toprule",
        f"    Training data & Seeds & {' & '.join(names)} \\\\",
        "    \\midrule",
        f"    \\multicolumn{{{width}}}{{l}}{{\\emph{{Measured, scale: {_escape(settings.scale)}}}}} \\\\",
    ]
    for row in rows:
        cells = [_latex_number(cell) for cell in row.cells.values()]
        lines.append(f"    {_escape(row.label)} & {_escape(row.seeds)} & {' & '.join(cells)} \\\\")
    printed = published_rows(settings, rows)
    if printed:
        lines.append("    \\midrule")
        for source in dict.fromkeys(row.source for row in printed):
            lines.append(f"    \\multicolumn{{{width}}}{{l}}{{\\emph{{Published: {_escape(source)}}}}} \\\\")
            for row in printed:
                if row.source == source:
                    cells = [_latex_published(cell) for cell in row.cells.values()]
                    lines.append(f"    {_escape(row.label)} & & {' & '.join(cells)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    lines += [f"  \\par {_escape(note)}" for note in _refusals(rows)]
    lines += ["\\end{table}"]
    return "\n".join(lines) + "\n"


def _caption(settings: StudySettings) -> str:
    text = f"Average precision on 0-100{_over(settings)}; in brackets the mean change, seed by seed, against "
    return f"{text}{_baseline(settings)}. Scale: {scale_note(settings)}."


def _latex_metric(metric: str) -> str:
    kind, _, name = metric.partition("_")
    index = name.removeprefix("AP")
    return f"{kind} AP$_{{\\mathrm{{{index}}}}}$" if index else f"{kind} AP"


def _latex_number(cell: Cell) -> str:
    if cell.value.mean is None:
        return "--"
    return number(cell.value).replace(" ± ", "\\,$\\pm$\\,") + _latex_change(cell.delta.mean)


def _latex_published(cell: Cell) -> str:
    return "--" if cell.published is None else f"{cell.published:.1f}" + _latex_change(cell.published_delta)


def _latex_change(change: float | None) -> str:
    return "" if change is None else f" {{\\footnotesize(${signed(change)}$)}}"


def _escape(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
    }
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
