"""A methods paragraph for a table: what was trained, on what, with what, in plain sentences from the records.

Citations are pandoc's: [@key], with the keys of the bibliography beside it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gen4det.evaluation.page_settings import PageSettings
from gen4det.evaluation.pedigree import Pedigree
from gen4det.evaluation.study_table import Metrics
from gen4det.evaluation.table_text import SCALE_NOTES, plain

CITATION = re.compile(r"\[((?:@[\w-]+(?:; )?)+)\]")
"""What a citation looks like."""
PACKAGES = {
    "torch": "PyTorch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "onedl-mmdetection": "MMDetection",
    "snakemake": "Snakemake",
    "faster-coco-eval": "faster-coco-eval",
}
"""Packages that are named, and how."""
MANY = 12
"""Settings that are listed; of more, their number is, and the page has them."""


def methods_paragraphs(
    settings: PageSettings,
    metrics: Metrics,
    files: Mapping[tuple[str, int], Path],
    measures: Mapping[str, dict[str, dict]],
) -> list[str]:
    """Paragraphs of plain sentences.

    Args:
        metrics: contents of metrics.json by arm and seed.
        files: where they lie; records lie around them.
        measures: measures.json of each set, under "measures".
    """
    pedigree = Pedigree()
    trained = {key: pedigree.record(path.parents[1] / "weights.safetensors") for key, path in files.items()}
    trained = {key: record for key, record in trained.items() if record}
    measured = {key: pedigree.record(path) for key, path in files.items()}
    about = [
        _scale(settings),
        *_detectors(settings, trained),
        _validation(settings, metrics, measured),
        *_rows(settings, trained),
    ]
    sets = [
        _sets(settings, names, [measures.get(name, {}).get("measures", {}).get("set", {}) for name in names])
        for names in _made_alike(settings)
    ]
    paragraphs = [about, sets, [*_statistics(settings), *_software(settings, trained)]]
    return [" ".join(filter(None, sentences)) for sentences in paragraphs if any(sentences)]


def cited_keys(paragraphs: Iterable[str]) -> list[str]:
    """Keys that paragraphs cite, each once, in their order."""
    found = (key.strip()[1:] for text in paragraphs for it in CITATION.findall(text) for key in it.split(";"))
    return list(dict.fromkeys(found))


def to_markdown(title: str, paragraphs: Sequence[str]) -> str:
    """The text of a file."""
    return "\n\n".join([f"# Methods: {title}", *paragraphs]) + "\n"


# --- sentences -----------------------------------------------------------------------------------------


def _scale(settings: PageSettings) -> str:
    note = SCALE_NOTES.get(settings.table.scale)
    return f"Everything was measured at the scale {note}." if note else ""


def _detectors(settings: PageSettings, trained: Mapping[tuple[str, int], dict]) -> list[str]:
    """A sentence for each detector and data set that rows are trained with."""
    sentences = []
    pairs = dict.fromkeys((it.detector, it.dataset) for it in settings.arms.values())
    for detector, dataset in pairs:
        arms = [arm for arm, it in settings.arms.items() if (it.detector, it.dataset) == (detector, dataset)]
        records = [record for (arm, _), record in trained.items() if arm in arms and "iterations" in record]
        cites = _cite(settings, *(settings.arms[arm].cites for arm in arms))
        if not records:
            sentences.append(f"No detector {detector}{cites} has been trained on the data {dataset} yet.")
            continue
        images = _range(record.get("images", {}).get(dataset) for record in records)
        configs = _and(dict.fromkeys(it["settings"]["detector"]["config"] for it in records))
        iterations = _range(it["iterations"] for it in records)
        batch = _range(it.get("batch_size") for it in records)
        sentences.append(
            f"The detector {detector} ({configs}){cites} was trained on the data {dataset}"
            f"{f' ({images} images)' if images else ''} for {iterations} iterations"
            f"{f' of {batch} images' if batch else ''}."
        )
    return sentences


def _validation(
    settings: PageSettings, metrics: Metrics, records: Mapping[tuple[str, int], dict | None]
) -> str:
    known = [
        values["validation"]
        for some in metrics.values()
        for values in some.values()
        if values.get("validation")
    ]
    protocols = dict.fromkeys(it["protocol"] for it in known if it.get("protocol"))
    names = dict.fromkeys(it.on or it.dataset for it in settings.arms.values())
    images = _range(record.get("images") for record in records.values() if record)
    cites = "".join(_of(settings, "protocol", it) for it in protocols)
    after = (
        f" after the protocol of {' and '.join(it.upper() for it in protocols)}{cites}" if protocols else ""
    )
    return (
        f"Average precision, on a scale of 0 to 100, was measured on the validation images of {_and(names)}"
        f"{f' ({images})' if images else ''}{after}."
    )


def _rows(settings: PageSettings, trained: Mapping[tuple[str, int], dict]) -> list[str]:
    """What each row is trained on, and with which settings otherwise than the row it is compared with."""
    table, sentences = settings.table, []
    for arm, facts in settings.arms.items():
        on = "the real images" if facts.real else "no real images"
        on += f" and the sets {_and(facts.sets)}" if len(facts.sets) > 1 else ""
        on += f" and the set {facts.sets[0]}" if len(facts.sets) == 1 else ""
        changed = _changed(_detector(trained, arm), _detector(trained, table.baseline_of(arm)))
        sentences.append(f'"{table.label(arm)}" trains on {on}{f", with {changed}" if changed else ""}.')
    wanted = len(table.arms) * len(table.seeds)
    seeds = f"Each row was trained with the seeds {_and(table.seeds)}."
    if len(table.seeds) == 1:
        seeds = f"Each row was trained with one seed, {table.seeds[0]}."
    done = sum(1 for record in trained.values() if "iterations" in record)
    return [*sentences, seeds, f"Of {wanted} trainings {done} are done." if done < wanted else ""]


def _detector(trained: Mapping[tuple[str, int], dict], arm: str) -> dict[str, Any]:
    records = [record for (name, _), record in trained.items() if name == arm]
    return records[0]["settings"].get("detector", {}) if records else {}


def _changed(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    changed = [f"{key} {_short(own[key])}" for key in own if key in other and own[key] != other[key]]
    return _and(changed)


def _made_alike(settings: PageSettings) -> list[list[str]]:
    """Names of the sets that one method made with the same models and departures of the same settings."""
    groups: dict[tuple, list[str]] = {}
    for name, facts in settings.sets.items():
        departures = tuple(facts.changed) if len(facts.changed) <= MANY else len(facts.changed)
        groups.setdefault((facts.method, tuple(facts.models.items()), departures), []).append(name)
    return list(groups.values())


def _sets(settings: PageSettings, names: Sequence[str], found: Sequence[dict]) -> str:
    """How sets that were made alike were made; where they differ, values stand in the order of the names."""
    many = len(names) > 1
    facts = [settings.sets[name] for name in names]
    method = settings.methods[facts[0].method]
    text = f"The {'sets' if many else 'set'} {_and(names)} {'were' if many else 'was'} made by {method.name}"
    text += _of(settings, "method", facts[0].method)
    if facts[0].models:
        after = {use: _of(settings, "model", use) for use in facts[0].models}
        used = (
            f"{path} ({use}{f', after{after[use]}' if after[use] else ''})"
            for use, path in facts[0].models.items()
        )
        text += f" with {_and(used)}"
    known = [it for it in found if it]
    if len(known) == len(names):
        images, labels = (_each(it[key] for it in known) for key in ("images", "labels"))
        text += f"; {'they offer' if many else 'it offers'} {images} images with {labels} drawn labels"
        rejected = [plain(it["rejected"]) for it in known if it["rejected"] is not None]
        if len(rejected) == len(names):
            text += f", and {_each(rejected)}% of the labels drawn were rejected"
    text += "."
    if not method.preset:
        return text
    if len(facts[0].changed) > MANY:
        start = "Each departs" if many else "It departs"
        return f"{text} {start} from the engine's preset in {len(facts[0].changed)} settings."
    changed = [
        f"{key} {_each(_short(it.changed[key][1]) for it in facts)} instead of "
        f"{_each(_short(it.changed[key][0]) for it in facts)}"
        for key in facts[0].changed
    ]
    return f"{text} Otherwise than in the engine's preset are {_and(changed)}." if changed else text


def _each(values: Iterable[object]) -> str:
    """One value for each set, in their order; a value that all share is said once."""
    known = [str(value) for value in values]
    return known[0] if len(set(known)) == 1 else _and(known)


def _statistics(settings: PageSettings) -> list[str]:
    if len(settings.table.seeds) < 2:
        return ["One seed has no spread: no difference in this table is known to be more than chance."]
    return [
        "Numbers are means and sample standard deviations over seeds. Changes are differences to the row "
        "that a row is compared with, seed by seed; their intervals at 95% add Student's distribution over "
        "seeds to a bootstrap over categories, where a metric is a mean over categories."
    ]


def _software(settings: PageSettings, trained: Mapping[tuple[str, int], dict]) -> list[str]:
    if not trained:
        return []
    versions: dict[str, dict[str, None]] = {}
    for record in trained.values():
        for package, version in record.get("packages", {}).items():
            versions.setdefault(package, {})[version] = None
    known = [
        f"{name} {' and '.join(versions[package])}{_of(settings, 'package', package)}"
        for package, name in PACKAGES.items()
        if package in versions
    ]
    devices = dict.fromkeys(record.get("device", "cpu") for record in trained.values())
    python = dict.fromkeys(record["python"] for record in trained.values() if "python" in record)
    operators = dict.fromkeys(record["operators"] for record in trained.values() if record.get("operators"))
    places = _and("the CPU" if it == "cpu" else it for it in devices)
    return [
        f"Trainings ran on {places} under Python {_and(python)} "
        f"with {_and(known)}{f' ({_and(operators)})' if operators else ''}."
    ]


# --- words ---------------------------------------------------------------------------------------------


def _cite(settings: PageSettings, *keys: Sequence[str]) -> str:
    """E.g. " [@coco; @lvis]"; nothing if there is nothing to cite."""
    known = [key for some in keys for key in some if key in settings.references]
    return f" [{'; '.join(f'@{key}' for key in dict.fromkeys(known))}]" if known else ""


def _of(settings: PageSettings, kind: str, name: str) -> str:
    """Citation of what is used, by its kind and name."""
    return _cite(settings, settings.cited.get(kind, {}).get(name, ()))


def _and(words: Iterable[object]) -> str:
    known = [str(word) for word in words]
    return known[0] if len(known) == 1 else f"{', '.join(known[:-1])} and {known[-1]}" if known else ""


def _range(values: Iterable[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return "" if not known else str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _short(value: object) -> str:
    """One value of a setting as people write it."""
    if isinstance(value, dict):
        inner = ((key, _short(it)) for key, it in value.items() if it not in (None, {}, []))
        return "{" + ", ".join(f"{key}: {text}" for key, text in inner if text != "{}") + "}"
    names = {True: "on", False: "off", None: "null", "": "empty"}
    return names[value] if value in (None, "") or isinstance(value, bool) else str(value)
