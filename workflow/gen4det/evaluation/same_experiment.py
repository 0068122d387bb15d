"""Whether detectors in two folders of results are the same experiment: what their records say of settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen4det.core.json_files import read_json
from gen4det.evaluation.page_pedigree import OF_DATA, OF_DETECTORS
from gen4det.evaluation.pedigree import Pedigree

SHOWN = 4
"""Differences that are named; of more, the number is."""
IMMATERIAL = frozenset({"train.seed", "generate.shards", "detect.max_per_image"})
"""Settings that another run of the same experiment may have otherwise."""


@dataclass(frozen=True)
class Behind:
    """What stands behind one metrics.json."""

    settings: dict[str, Any]
    """By path, e.g. "train.detector.iterations"."""
    code: dict[str, str]
    """Hash of the code of each stage."""


def settings_behind(metrics: Path, results: Path) -> Behind | None:
    """Settings of a detector, its synthetic sets and its measurement, hashes of its data; None: no records.

    Data count by their annotations, not by their settings: these name folders of one machine.

    Args:
        results: the folder that it lies in, wherever that was when it was made.
    """
    pedigree = Pedigree(results)
    record = pedigree.record(metrics.parents[1] / "weights.safetensors")
    if record is None:
        return None
    settings: dict[str, Any] = {
        "validation data": read_json(metrics, "a metrics.json").get("validation"),
        "training data": record.get("trained_on", {}).get("split"),
    }
    code: dict[str, str] = {}
    for link in pedigree.way_back(metrics):
        # Detectors that label or filter are experiments of their own, with rows of their own.
        if link.stage in OF_DETECTORS and not Path(link.path).is_relative_to(metrics.parents[1]):
            continue
        for path, value in _flat(link.facts["settings"]) if link.stage not in OF_DATA else ():
            if f"{link.stage}.{path}" not in IMMATERIAL:
                settings.setdefault(f"{_name(link.path)}{link.stage}.{path}", value)
        code.setdefault(link.stage, link.code)
        for path, digest in link.inputs.items():
            if link.stage == "train" and pedigree.place(path) is None:
                settings[f"contents of {path}"] = digest[:12]
    return Behind(settings, code)


def _name(path: str) -> str:
    """The set that a result is of, since a row may have several; else nothing."""
    parts = Path(path).parts
    if "synthetic" not in parts:
        return ""
    place = len(parts) - 1 - parts[::-1].index("synthetic")
    return f"{'/'.join(parts[place + 1 : place + 3])}: "


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


def differing(run: Behind, reference: Behind) -> list[str]:
    """Settings that both know and that differ, in words. What one of them lacks counts as equal."""
    found = [
        f"{key} is {run.settings[key]!r}, in the reference {reference.settings[key]!r}"
        for key in run.settings
        if key in reference.settings and run.settings[key] != reference.settings[key]
    ]
    return found[:SHOWN] + ([f"and {len(found) - SHOWN} more settings"] if len(found) > SHOWN else [])


def other_code(run: Behind, reference: Behind) -> list[str]:
    """Stages whose code was another one."""
    return [stage for stage in run.code if reference.code.get(stage, run.code[stage]) != run.code[stage]]
