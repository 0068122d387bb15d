"""Table and figure of how right labels are, in rendered scenes: a row for each synthetic set of a study."""

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import GREY, MARKERS, PAGE_WIDTH, PALETTE, as_text, style

DETECTOR = "detector"
COLUMNS = {
    "set": "set",
    "labels": "labels",
    "novel_by": "novel by",
    "score": "least score",
    "precision_base": "base precision",
    "recall_base": "base recall",
    "precision_before": "novel precision before",
    "recall_before": "novel recall before",
    "precision_novel": "novel precision",
    "recall_novel": "novel recall",
    "novel_labels": "novel labels",
    "novel_objects": "novel objects",
    "scenes": "scenes",
}
"""Columns of the CSV file, and how people read them. Labels of base categories are the detector's; "before"
is before self-training."""
BEFORE, AFTER = PALETTE[2], PALETTE[3]
KINDS = {"base": "--", "novel": "-"}


def shares(count: dict) -> tuple[float | None, float | None]:
    """Precision and recall on 0 to 100; None without a label, or without an object."""
    return tuple(100 * count["right"] / count[of] if count[of] else None for of in ("labels", "objects"))


def read_quality(path: Path) -> dict:
    """What `label_quality` wrote.

    Raises:
        InputError: it is something else.
    """
    found = read_json(path, "measures of labels")
    if missing := {"curve", "detector", "shown", "beta"} - found.keys():
        raise InputError(
            f"{path}: not measures of labels, without {', '.join(sorted(missing))}; measure again"
        )
    return found


def row(name: str, label: str, quality: dict) -> dict:
    """A row of COLUMNS.

    Args:
        name: <data set>/<engine>.
        label: of the row of the study's table.
    """
    by_detector = quality["novel_by"] == DETECTOR
    curve = {entry["epochs"]: entry for entry in quality["curve"]}
    novel = quality["detector"]["novel"] if by_detector else quality["curve"][-1]["novel"]
    before = curve.get(quality["before"]) if quality["before"] and not by_detector else None
    base, then, now = (
        shares(it) if it else (None, None)
        for it in (quality["detector"]["base"], before and before["novel"], novel)
    )
    values = [name, label, quality["novel_by"], quality["detector_score" if by_detector else "beta"]]
    values += [*base, *then, *now, novel["labels"], novel["objects"], quality["scenes"]]
    return dict(zip(COLUMNS, values, strict=True))


def to_csv(rows: list[dict]) -> str:
    """The rows as CSV, shares with two decimals, undefined ones empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    for it in rows:
        writer.writerow({key: _text(value, "") for key, value in it.items()})
    return stream.getvalue()


def to_markdown(rows: list[dict]) -> str:
    """The rows for people."""
    shown = [key for key in COLUMNS if key != "set"]
    lines = [[COLUMNS[key] for key in shown], ["---"] * len(shown)]
    lines += [[_text(it[key], "-").replace("|", r"\|") for key in shown] for it in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: object, nothing: str) -> str:
    return nothing if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def figure(qualities: dict[str, dict], pictures: dict[str, list[np.ndarray]]) -> Figure:
    """Precision and recall along the epochs of each head; below drawn images, before and after self-training.

    Args:
        qualities: what `label_quality` wrote, by label; controls that no head labels have no line.
        pictures: images that it shows, uint8 (H, W, 3), by the same labels. Those of the last head that was
            kept before its self-training are shown.
    """
    heads = {label: it for label, it in qualities.items() if it["novel_by"] != DETECTOR and it["curve"]}
    with_both = [label for label, it in heads.items() if it["before"] is not None and it["shown"]]
    label = with_both[-1] if with_both else None
    shown = heads[label]["shown"] if label else []
    columns = max((sum(it["set"] == kind for it in shown) for kind in KINDS), default=0)
    side = PAGE_WIDTH / max(columns, 4)
    heights = (2.3, 4 * (side + 0.15)) if shown else (2.3, 0.01)
    with style():
        whole = Figure(figsize=(PAGE_WIDTH, sum(heights)), layout="constrained")
        top, below = whole.subfigures(2, 1, height_ratios=heights)
        _curves(top, heads)
        if shown:
            _pages(below, shown, pictures[label], columns)
            below.suptitle(
                f"{as_text(label)}: boxes before self-training (orange) and after it (green); "
                "above base, below novel categories",
                fontsize=7,
            )
    return whole


def _curves(part, heads: dict[str, dict]) -> None:
    axes = dict(zip(("precision", "recall"), part.subplots(1, 2, sharex=True, sharey=True), strict=True))
    for number, (label, quality) in enumerate(heads.items()):
        epochs = [entry["epochs"] for entry in quality["curve"]]
        for kind, linestyle in KINDS.items():
            values = zip(*(shares(entry[kind]) for entry in quality["curve"]), strict=True)
            for panel, of_panel in zip(axes.values(), values, strict=True):
                panel.plot(
                    epochs,
                    [np.nan if it is None else it for it in of_panel],
                    linestyle,
                    color=PALETTE[(number + 1) % len(PALETTE)],
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=3,
                    label=as_text(label) if kind == "novel" else None,
                )
        if quality["begins"] is not None:
            for panel in axes.values():
                panel.axvline(quality["begins"], color=GREY, linewidth=0.6, linestyle=":")
    for name, panel in axes.items():
        panel.set(title=f"{name} (novel: solid, base: dashed)", xlabel="epochs", ylim=(-3, 103))
    if heads:
        axes["recall"].legend(frameon=False, fontsize=6)


def _pages(part, shown: list[dict], images: list[np.ndarray], columns: int) -> None:
    panels = part.subplots(4, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    place = dict.fromkeys(KINDS, 0)
    for entry, image in zip(shown, images, strict=True):
        line, column = 2 * (entry["set"] == "novel"), place[entry["set"]]
        place[entry["set"]] += 1
        for after, (when, colour) in enumerate((("before", BEFORE), ("after", AFTER))):
            axes = panels[line + after, column]
            show_image(axes, image)
            boxes = [{"bbox": box, "text": f"{score:.2f}"} for score, box in entry[when]]
            draw_instances(
                axes, boxes, image.shape[:2], label=lambda _, it: it["text"], fontsize=5, colours=[colour]
            )
            if not after:
                axes.set_title(as_text(" and ".join(entry["names"])), fontsize=6)
