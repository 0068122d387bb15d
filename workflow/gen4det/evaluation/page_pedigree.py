"""What a page tells of where its numbers come from: seeds, trainings, sets and data, by their records."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gen4det.evaluation.pedigree import Link, Pedigree
from gen4det.evaluation.study_table import value_of

OF_DETECTORS = ("measure", "predict", "train")
"""Stages whose results belong to one seed."""
OF_DATA = ("render", "photographs", "download", "subset", "names")
TRAINING = {
    "iterations": "iterations",
    "batch_size": "images in a batch",
    "device": "device",
    "training_seconds": "seconds",
    "peak_memory_mib": "memory (MiB)",
    "started": "started",
}
"""Facts of the record of a training, and how people read them."""


def seeds_behind(
    metrics: Sequence[str],
    found: Mapping[int, dict],
    files: Mapping[int, Path],
    pedigree: Pedigree,
    sets: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Of each seed of a row its values, its training, and the results on the way to them.

    Args:
        metrics: columns of the table.
        found: contents of metrics.json.
        files: where they lie.
        sets: name of each set by the path of its annotations.
    """
    seeds = []
    for seed, path in files.items():
        values = found[seed]
        refused = values.get("refused", "")
        numbers = {it: None if refused else value_of(values, it) for it in dict.fromkeys(metrics)}
        record = pedigree.record(path.parents[1] / "weights.safetensors") or {}
        links = [link for link in pedigree.way_back(path) if _is_of(link, path.parents[1])]
        seeds.append(
            {
                "seed": seed,
                "refused": refused,
                "values": {it: "" if value is None else f"{value:.2f}" for it, value in numbers.items()},
                "training": {name: _fact(record[key]) for key, name in TRAINING.items() if record.get(key)},
                "images": record.get("images", {}),
                "links": [_link(link, pedigree, sets) for link in links],
            }
        )
    return seeds


def _is_of(link: Link, folder: Path) -> bool:
    return link.stage in OF_DETECTORS and Path(link.path).is_relative_to(folder)


def set_behind(pedigree: Pedigree, path: Path, few: int) -> list[dict[str, Any]]:
    """What a synthetic set was made from, a group for each stage, nearest first; data and detectors left out.

    Args:
        path: set.json.
        few: results of a stage that are listed.
    """
    by_stage: dict[str, list[Link]] = {}
    for link in pedigree.way_back(path):
        if link.stage not in (*OF_DETECTORS, *OF_DATA):
            by_stage.setdefault(link.stage, []).append(link)
    return [
        {
            "stage": stage,
            "code": ", ".join(dict.fromkeys(link.code for link in links)),
            "seconds": round(sum(link.facts.get("wall_seconds", 0) for link in links), 1),
            "device": ", ".join(sorted({link.facts.get("device", "cpu") for link in links})),
            "seeds": ", ".join(
                dict.fromkeys(f"{k} {v}" for it in links for k, v in it.facts["seeds"].items())
            ),
            "links": [_link(link, pedigree, {}) for link in links[:few]],
            "more": max(0, len(links) - few),
        }
        for stage, links in by_stage.items()
    ]


def data_behind(pedigree: Pedigree, files: Iterable[Path]) -> list[dict[str, Any]]:
    """Data sets that any of these metrics go back to, with what they were made of."""
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        for link in pedigree.way_back(path):
            if link.stage in OF_DATA and link.path not in found:
                found[link.path] = {
                    "name": Path(link.path).parent.name,
                    "stage": link.stage,
                    "code": link.code,
                    "settings": {
                        key: value for key, value in link.facts["settings"].items() if value is not None
                    },
                }
    return list(found.values())


def _link(link: Link, pedigree: Pedigree, sets: Mapping[str, str]) -> dict[str, Any]:
    return {
        "path": link.path,
        "stage": link.stage,
        "code": link.code,
        "seconds": link.facts.get("wall_seconds"),
        "inputs": [
            {
                "path": name,
                "hash": recorded[:12],
                "state": pedigree.state(name, recorded),
                "set": sets.get(name, ""),
                "data": Path(name).parent.name if Path(name).name == "dataset.json" else "",
            }
            for name, recorded in link.inputs.items()
        ],
    }


def _fact(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
