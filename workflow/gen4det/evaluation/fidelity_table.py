"""The table and the figure of fidelity: a row for each synthetic set of a run, and one for the real
images."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.evaluation.plotting import GREY, MARKERS, PAGE_WIDTH, PALETTE, style
from gen4det.evaluation.table_text import NOTHING, SCALE_NOTES

REAL = "real"
LAYOUT = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COLUMNS = {
    **{name: f"layout {name}" for name in LAYOUT},
    "AP_easy": "layout AP, easy",
    "AP_hard": "layout AP, hard",
    "found": "found (%)",
    "found_easy": "found, easy",
    "found_hard": "found, hard",
    "named": "named by CLIP (%)",
    "named_easy": "named, easy",
    "named_hard": "named, hard",
    "frechet": "Frechet distance",
    "agreement": "agreement (%)",
    "rejected": "rejected (%)",
    "seconds_per_image": "s per image",
}
"""Values of a row by their name in the CSV file, and how people read them."""


@dataclass(frozen=True)
class SetRow:
    """One row."""

    dataset: str
    engine: str
    """Or "real": the real validation images, the ceiling of the layout's average precision."""
    images: int | None
    values: dict[str, float | None]
    """By the keys of COLUMNS."""
    note: str = ""
    """Why a value is missing."""
    published: dict[str, float | str] = field(default_factory=dict)


def read_row(name: str, path: Path, published: dict[str, dict[str, float | str]]) -> SetRow:
    """A row from its files.

    Args:
        name: "<data set>/<engine>".
        path: folder of a set, or metrics.json of the detector on real images.

    Raises:
        InputError: a file is missing or malformed.
    """
    dataset, _, engine = name.partition("/")
    values: dict[str, float | None] = dict.fromkeys(COLUMNS)
    if engine == REAL:
        box = read_json(path, "metrics of a detector").get("box") or {}
        return SetRow(dataset, engine, None, values | {key: box.get(key) for key in LAYOUT})
    fidelity = read_json(path / "fidelity.json", "measures of fidelity")
    measured = read_json(path / "measures.json", "measures of a set")
    try:
        whole = fidelity["layout"].get("all", {})
        values |= {key: whole.get(key) for key in (*LAYOUT, "found")}
        for attribute in ("easy", "hard"):
            group = fidelity["layout"].get(attribute, {})
            values[f"AP_{attribute}"], values[f"found_{attribute}"] = group.get("AP"), group.get("found")
            values[f"named_{attribute}"] = fidelity["named"].get(attribute)
        values["named"], values["frechet"] = fidelity["named"].get("all"), fidelity["frechet"]
        values |= {key: measured["set"][key] for key in ("agreement", "rejected", "seconds_per_image")}
        drawn, note = fidelity["frechet_of"]["drawn"], fidelity["frechet_missing"] or ""
    except KeyError as error:
        raise InputError(f"{path}: measures of fidelity lack {error}; measure again") from error
    return SetRow(dataset, engine, drawn, values, note, published.get(engine, {}))


def to_csv(rows: list[SetRow], scale: str) -> str:
    """The table for programs."""
    stream = io.StringIO()
    names = list(COLUMNS)
    writer = csv.writer(stream, lineterminator="\n")
    printed = [f"{name}_published" for name in names if any(name in row.published for row in rows)]
    writer.writerow(["scale", "dataset", "engine", "images", *names, *printed, "published_source", "note"])
    for row in rows:
        own = [_plain(row.values[name]) for name in names]
        theirs = [_plain(row.published.get(name.removesuffix("_published"))) for name in printed]
        source = row.published.get("source", "")
        writer.writerow([scale, row.dataset, row.engine, row.images or "", *own, *theirs, source, row.note])
    return stream.getvalue()


def to_markdown(rows: list[SetRow], scale: str) -> str:
    """The table for people: columns that no row has are left out."""
    shown = [name for name in COLUMNS if any(row.values[name] is not None for row in rows)]
    header = ["data", "set", "images", *(COLUMNS[name] for name in shown)]
    lines = [
        [row.dataset, row.engine, str(row.images or NOTHING), *(_text(row.values[name]) for name in shown)]
        for row in rows
    ]
    rule = "|".join([":---", ":---", *["---:"] * (len(header) - 2)])
    table = "\n".join(
        ["| " + " | ".join(header) + " |", f"|{rule}|", *("| " + " | ".join(it) + " |" for it in lines)]
    )
    notes = [f"- {row.dataset}, {row.engine}: {row.note}" for row in rows if row.note]
    notes += [
        f"- published for {row.engine}: "
        + ", ".join(f"{key} {value}" for key, value in row.published.items() if key != "source")
        + f" ({row.published.get('source', '')})"
        for row in rows
        if row.published
    ]
    parts = [f"# Fidelity ({SCALE_NOTES.get(scale, scale)})", table]
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts) + "\n"


def figure(rows: list[SetRow]) -> Figure:
    """Layout AP, with its parts by attribute, and Frechet distance, set by set."""
    names = [f"{row.engine} ({row.dataset})" for row in rows]
    with style():
        page = Figure(figsize=(PAGE_WIDTH, 0.6 + 0.24 * len(rows)), layout="constrained")
        left, right = page.subplots(1, 2, sharey=True)
        for number, (key, label) in enumerate([("AP", "all"), ("AP_easy", "easy"), ("AP_hard", "hard")]):
            points = [
                (row.values[key], place) for place, row in enumerate(rows) if row.values[key] is not None
            ]
            if points:
                left.plot(
                    *zip(*points, strict=True), MARKERS[number], color=PALETTE[number], label=label, ms=4
                )
        left.set_xlabel("average precision of the layout")
        left.legend(frameon=False)
        points = [
            (row.values["frechet"], place)
            for place, row in enumerate(rows)
            if row.values["frechet"] is not None
        ]
        if points:
            right.plot(*zip(*points, strict=True), MARKERS[0], color=PALETTE[0], ms=4)
        right.set_xlabel("Frechet distance")
        for axes in (left, right):
            axes.set_yticks(range(len(rows)), names)
            axes.grid(axis="x", color=GREY, alpha=0.2, linewidth=0.5)
        left.invert_yaxis()
    return page


def _plain(value: float | str | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _text(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}"
