"""The data card of an export: what is in it, how it was made, its terms, what it did to a detector."""

import csv
from collections.abc import Iterable
from pathlib import Path

import yaml

from gen4det.core.settings import Settings
from gen4det.data.layouts.folder import LAYOUTS, Exported

UNKNOWN = "unknown"


class ModelFacts(Settings):
    """A pretrained model that an engine used."""

    use: str
    """Its key in `foundation`."""
    name: str
    """Path or name."""
    licence: str = UNKNOWN
    """Of its weights."""
    citation: str = ""
    """Who to cite."""


class CardFacts(Settings):
    """What a card says beside what was counted."""

    scale: str
    """Scale it was made at."""
    dataset: str
    """Data set the engine drew for."""
    data_licence: str = UNKNOWN
    """Terms of the real images."""
    data_citation: str = ""
    """Who to cite for them."""
    engine: str
    """Variant of an engine."""
    method: str
    """Its engine."""
    paper: str = ""
    """Who to cite for the engine."""
    code: str = UNKNOWN
    """Licence of the code that the paper's authors published."""
    models: tuple[ModelFacts, ...] = ()
    """Models it used."""
    run_seed: int
    """Seed of all that was drawn."""


class ExportSettings(Settings):
    """Settings of the stage `export`."""

    layout: str
    """One of `LAYOUTS`."""
    merged: bool = False
    """Whether the real images are in it, too: training, and those of validation as such."""
    card: CardFacts
    """For README.md."""


def card(settings: ExportSettings, done: Exported, categories: list[dict], effects: list[str]) -> str:
    """README.md, Markdown; of an imagefolder with the head that the Hugging Face hub reads.

    Args:
        effects: lines of `effect`.
    """
    facts = settings.card
    title = LAYOUTS[settings.layout].title
    content = "real and generated images" if settings.merged else "generated images alone"
    parts = [
        _head(settings),
        f"# {facts.dataset} by {facts.engine}, {title}",
        f"Training data for object detectors: {content}, made with Gen4Det at the scale {facts.scale}.",
        "## What is in it",
        _counts(done),
        _per_category(done, categories),
        "## What this layout could not hold",
        "\n".join(f"- {what}: {count}" for what, count in sorted(done.losses.items())) or "Nothing was lost.",
        "## How it was made",
        _making(facts),
        "## What it did to a detector",
        "\n".join(effects) or "No table of this run has measured it yet.",
        "## Terms",
        _terms(settings),
        "## To cite",
        "\n".join(f"- {line}" for line in _citations(settings)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(settings: ExportSettings) -> str:
    if settings.layout != "imagefolder":
        return ""
    values = {"task_categories": ["object-detection"], "tags": ["synthetic"], "license": "other"}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _counts(done: Exported) -> str:
    lines = ["| split | origin | images | objects |", "|---|---|---:|---:|"]
    for (split, origin), images in done.images.items():
        objects = sum(count for key, count in done.objects.items() if key[:2] == (split, origin))
        lines.append(f"| {split} | {origin} | {images} | {objects} |")
    return "\n".join(lines)


def _per_category(done: Exported, categories: list[dict]) -> str:
    columns = list(done.images)
    head = " | ".join(f"{split}, {origin}" for split, origin in columns)
    lines = [f"| id | category | {head} |", "|---:|---|" + "---:|" * len(columns)]
    for category in categories:
        name = category["name"]
        counts = " | ".join(str(done.objects[(*column, name)]) for column in columns)
        lines.append(f"| {category['id']} | {_cell(name)} | {counts} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _making(facts: CardFacts) -> str:
    lines = [
        f"- engine: {facts.engine} ({facts.method}), seed {facts.run_seed}; all settings: record beside it",
        *(f"- model `{model.use}`: {model.name}" for model in facts.models),
        f"- drawn for the data set: {facts.dataset}",
    ]
    return "\n".join(lines)


def _terms(settings: ExportSettings) -> str:
    facts = settings.card
    lines = [
        "What is not known is called unknown; nobody but you can judge your use.",
        "",
        "- Gen4Det's own code, which made this: Apache-2.0",
        f"- code published by the authors of {facts.method}, not used here: {facts.code}",
        *(f"- weights of `{model.use}`: {model.licence}" for model in facts.models),
        f"- real images of {facts.dataset}{'' if settings.merged else ', not in here'}: {facts.data_licence}",
    ]
    return "\n".join(lines)


def _citations(settings: ExportSettings) -> Iterable[str]:
    facts = settings.card
    everything = [facts.paper, *(model.citation for model in facts.models), facts.data_citation]
    return dict.fromkeys(
        [line for line in everything if line] + ["Gen4Det, see CITATION.cff of its repository"]
    )


def effect(table: Path, arm: str) -> list[str]:
    """Lines about one row of a table that is there: its numbers, and the change against real images.

    Args:
        table: tables/<study>.csv.
    """
    if not table.is_file():
        return []
    with open(table, newline="", encoding="utf-8") as stream:
        row = next((row for row in csv.DictReader(stream) if row["arm"] == arm), None)
    if row is None or not int(row["seeds_present"]):
        return []
    words = []
    for key, value in row.items():
        if key.endswith("_mean") and value:
            metric = key.removesuffix("_mean")
            change = row.get(f"{metric}_delta")
            text = f"{metric.replace('_', ' ')} {float(value):.1f}"
            words.append(f"{text} ({float(change):+.1f})" if change else text)
    seeds = f"{row['seeds_present']} of {row['seeds_wanted']} seeds"
    what = f"{row['study']}, {row['detector']}, {row['label']}, {seeds}"
    return [f"- {what}: {', '.join(words)}; in brackets the change against the baseline"]
