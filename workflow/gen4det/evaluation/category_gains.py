"""Average precision of every category, and what an arm gains in it, by its number of training images."""

import csv
import io
from collections import defaultdict
from statistics import fmean

from matplotlib.figure import Figure

from gen4det.evaluation.plotting import GREY, MARKERS, PALETTE, as_text, style
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import Metrics

FACTS = ("id", "name", "images_train", "images_val", "instances_val")


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
    """A point for each category and arm: gain in AP against training images, on a logarithmic axis."""
    with style():
        figure = Figure(figsize=(5, 3), layout="constrained")
        kind = rows[0]["kind"] if rows else "box"
        axes = figure.add_subplot(xlabel="training images of the category", ylabel=f"change of {kind} AP")
        axes.set_xscale("symlog", linthresh=1)
        axes.axhline(0, color=GREY, linewidth=0.6)
        arms = [arm for arm in settings.arms if settings.baseline_of(arm) != arm]
        for number, arm in enumerate(arms):
            points = [(row["images_train"] or 0, row[f"{arm} gain"]) for row in rows]
            points = [(images, gain) for images, gain in points if gain is not None]
            colour = PALETTE[(number + 1) % len(PALETTE)]
            axes.plot(
                *(zip(*points, strict=True) if points else ((), ())),
                MARKERS[number % len(MARKERS)],
                color=colour,
                label=as_text(settings.label(arm)),
                markersize=3,
            )
        if arms:
            axes.legend(frameon=False)
    return figure
