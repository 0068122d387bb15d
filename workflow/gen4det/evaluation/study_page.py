"""A page on one study that stands alone: one file of HTML, to be opened, kept and handed on without a server.

What it shows is put together here; how it looks is in `templates`. A number of the table leads to the seeds
behind it, their records, and the images that were trained on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gen4det.evaluation.bibliography import in_a_line, to_bibtex
from gen4det.evaluation.filter_page import read_fractions
from gen4det.evaluation.gallery import in_words as reason_in_words
from gen4det.evaluation.gallery import read_synthetic, reason_counts
from gen4det.evaluation.methods import CITATION, cited_keys
from gen4det.evaluation.page_curves import Drawing, drawings, read_losses
from gen4det.evaluation.page_pedigree import data_behind, seeds_behind, set_behind
from gen4det.evaluation.page_pictures import in_url, pictures_of
from gen4det.evaluation.page_settings import PageSettings
from gen4det.evaluation.pedigree import Pedigree
from gen4det.evaluation.set_columns import COLUMNS, SetValues
from gen4det.evaluation.study_table import Cell, Metrics, Row, published_rows
from gen4det.evaluation.table_text import (
    NOTHING,
    SCALE_NOTES,
    about_chance,
    in_words,
    metric_name,
    number,
    plain,
    signed,
)

TEMPLATES = Path(__file__).with_name("templates")
MEASURES = {
    "images": "images offered",
    "labels": "labels",
    "rejected": "labels rejected (%)",
    "agreement": "confirmed by the real detector (%)",
    "seconds_per_image": "seconds for an image drawn",
    "seconds_per_offered": "seconds for an image offered",
}
"""Measures of a set on the card of its engine, and how people read them."""
FEW = 8
"""Results of one kind whose records are listed; of more, the rest is counted."""


def render(context: Mapping[str, Any]) -> str:
    """The page, from what `page_context` puts together."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(context)


def page_context(
    settings: PageSettings,
    rows: Sequence[Row],
    metrics: Metrics,
    files: Mapping[tuple[str, int], Path],
    *,
    synthetic: Mapping[str, Path],
    measures: Mapping[str, dict[str, dict]],
    values: Mapping[str, SetValues],
    figures: Mapping[str, Path],
    fits: Mapping[str, Path],
    paragraphs: Sequence[str],
) -> dict[str, Any]:
    """What the page shows, in plain values.

    Args:
        rows: of the table.
        metrics: contents of metrics.json by arm and seed.
        files: where they lie, by arm and seed; records and losses lie around them.
        synthetic: set.json of each set.
        measures: measures.json of each set, under "measures".
        values: columns of the table about the sets behind a row, where the study has them.
        figures: pictures (.png) by caption.
        fits: tables of the losses of what engines learned, by name.
        paragraphs: what `methods.methods_paragraphs` says.

    Raises:
        InputError: a file is missing or is not what it should be.
    """
    table, pedigree = settings.table, Pedigree()
    others = [row for row in rows if table.baseline_of(row.arm) != row.arm]
    losses = {row.arm: _losses(files, row) for row in rows}
    paths = {str(path): name for name, path in synthetic.items()}
    return {
        "title": table.title,
        "question": settings.question,
        "scale": table.scale,
        "note": SCALE_NOTES.get(table.scale, ""),
        "facts": {
            "Data": table.dataset, "Detector": table.detector, "Seeds": ", ".join(map(str, table.seeds)),
        },
        "several": len(table.seeds) > 1,
        "nothing": NOTHING,
        "words": about_chance(others) if others else "",
        "columns": {metric: metric_name(metric) for metric in table.metrics},
        "rows": [_row(table.baseline_of(row.arm), row) for row in rows],
        "sentences": [
            {"arm": row.arm, "text": text, "told": _told(row.cells[table.metrics[0]])}
            for row, text in zip(others, in_words(table, others), strict=False)  # no words: one seed
        ],
        "published": [_published(row) for row in published_rows(table, list(rows))],
        "figures": [
            {"name": name, "url": in_url("image/png", path.read_bytes())} for name, path in figures.items()
        ],
        "set_columns": COLUMNS,
        "set_rows": [
            {"label": row.label, "arm": row.arm, "devices": ", ".join(values[row.arm].devices),
             "cells": [plain(value) for value in values[row.arm].values.values()]}
            for row in rows if row.arm in values
        ],
        "first_metric": metric_name(table.metrics[0]),
        "arms": [_arm(settings, metrics, files, row, pedigree, paths) for row in rows],
        "curves": _named(drawings(losses), {row.arm: row.label for row in rows}),
        "fit_curves": [
            (name, found) for name, path in fits.items()
            for found in drawings({name: [read_losses(path)]}).values()
        ],
        "set_measures": MEASURES,
        "many_sets": len(settings.sets) > 2 * len(settings.methods),
        "methods": [_method(settings, name, measures) for name in settings.methods],
        "sets": [_set(settings, name, path, pedigree) for name, path in synthetic.items()],
        "data": data_behind(pedigree, files.values()),
        "methods_text": [_with_links(text) for text in paragraphs],
        "cited": [
            {"key": key, "text": in_a_line(settings.references[key])} for key in cited_keys(paragraphs)
        ],
        "bibtex": to_bibtex(settings.references, cited_keys(paragraphs)),
    }  # fmt: skip


def _with_links(text: str) -> list[tuple[str, list[str]]]:
    """A paragraph as stretches of text, each with the keys that are cited after it."""
    parts = CITATION.split(text)
    keys = [[key.strip()[1:] for key in it.split(";")] for it in parts[1::2]]
    return list(zip(parts[::2], [*keys, []], strict=True))


# --- the table -------------------------------------------------------------------------------------


def _told(cell: Cell) -> bool:
    return cell.interval is not None and cell.interval.told


def _row(baseline: str, row: Row) -> dict[str, Any]:
    cells = {}
    for metric, cell in row.cells.items():
        where = cell.interval
        cells[metric] = {
            "value": number(cell.value),
            "change": "" if cell.delta.mean is None else number(cell.delta, is_signed=True),
            "interval": f"{signed(where.low)} to {signed(where.high)}" if where else "",
            "told": _told(cell),
        }
    return {
        "arm": row.arm,
        "label": row.label,
        "seeds": row.seeds,
        "refusal": row.refusal,
        "is_baseline": row.arm == baseline,
        "cells": cells,
    }


def _published(row: Row) -> dict[str, Any]:
    cells = {
        metric: {
            "value": NOTHING if cell.published is None else f"{cell.published:.1f}",
            "change": "" if cell.published_delta is None else signed(cell.published_delta),
        }
        for metric, cell in row.cells.items()
    }
    return {"label": row.label, "source": row.source, "cells": cells}


# --- rows, engines, sets --------------------------------------------------------------------------


def _losses(files: Mapping[tuple[str, int], Path], row: Row) -> list[tuple[list[float], list[float]]]:
    tables = (path.parents[1] / "losses.csv" for (arm, _), path in files.items() if arm == row.arm)
    return [read_losses(path) for path in tables if path.is_file()]


def _named(found: Mapping[str, Drawing], labels: Mapping[str, str]) -> list[tuple[str, Drawing]]:
    return [(labels[name], drawing) for name, drawing in found.items()]


def _arm(
    settings: PageSettings,
    metrics: Metrics,
    files: Mapping[tuple[str, int], Path],
    row: Row,
    pedigree: Pedigree,
    sets: Mapping[str, str],
) -> dict[str, Any]:
    facts = settings.arms[row.arm]
    mine = {seed: path for (arm, seed), path in files.items() if arm == row.arm}
    return {
        "arm": row.arm,
        "label": row.label,
        "missing": row.missing,
        "refusal": row.refusal,
        "dataset": facts.dataset,
        "detector": facts.detector,
        "real": facts.real,
        "sets": facts.sets,
        "seeds": seeds_behind(settings.table.metrics, metrics[row.arm], mine, pedigree, sets),
        "settings": _training_settings(pedigree, mine),
    }


def _training_settings(pedigree: Pedigree, mine: Mapping[int, Path]) -> str:
    for path in mine.values():
        if record := pedigree.record(path.parents[1] / "weights.safetensors"):
            return as_yaml(record["settings"].get("detector", {}))
    return ""


def _method(settings: PageSettings, name: str, measures: Mapping[str, dict[str, dict]]) -> dict[str, Any]:
    sets = []
    for set_name, facts in settings.sets.items():
        if facts.method == name:
            found = measures.get(set_name, {}).get("measures", {})
            sets.append(
                {
                    "name": set_name,
                    "changed": {key: tuple(map(as_text, pair)) for key, pair in facts.changed.items()},
                    "measures": {key: plain(value) for key, value in found.get("set", {}).items()},
                    "seconds": ", ".join(
                        f"{kind} {value:,.0f}" for kind, value in found.get("seconds", {}).items() if value
                    ),
                    "devices": ", ".join(found.get("devices", ())),
                }
            )
    facts = settings.methods[name]
    mine = [it for it in settings.sets.values() if it.method == name]
    models = list(dict.fromkeys(pair for it in mine for pair in it.models.items()))
    return {
        "key": name,
        "facts": facts.model_dump(),
        "preset": as_yaml(facts.preset),
        "sets": sets,
        "models": models,
    }


def _set(settings: PageSettings, name: str, path: Path, pedigree: Pedigree) -> dict[str, Any]:
    generated = read_synthetic(path)
    record = pedigree.record(path) or {}
    return {
        "name": name,
        "method": settings.methods[settings.sets[name].method].name,
        "images": len(generated.images),
        "drawn": record.get("images_generated"),
        "kept_images": len(generated.kept),
        "kept": sum(map(len, generated.kept.values())),
        "real": sum(bool(label.get("real")) for labels in generated.kept.values() for label in labels),
        "rejected": sum(map(len, generated.rejected.values())),
        "reasons": [(reason_in_words(reason), count) for reason, count in reason_counts(generated)],
        "groups": [
            {"name": row["name"], "generated": int(row["generated"]), "kept": int(row["kept"]),
             "share": 100 * int(row["kept"]) / max(1, int(row["generated"]))}
            for row in read_fractions(path.with_name("filter.csv"))
        ],
        "pictures": pictures_of(generated, settings.pictures) if generated.images else [],
        "made": set_behind(pedigree, path, FEW),
    }  # fmt: skip


def as_yaml(values: object) -> str:
    """Settings as people write them."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=90).strip()


def as_text(value: object) -> str:
    """One value of a setting in a line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("\n...").strip()
