"""What a table says of the generated images behind its rows: how many, how good, what they cost. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import Row

COLUMNS = {
    "images": "images offered",
    "rejected": "rejected (%)",
    "found": "found by the real detector (%)",
    "layout_AP": "layout AP",
    "seconds_per_offered": "s per offered image",
    "hours_per_point": "h per point",
}
"""Values of an arm by their name in the CSV file, and how people read them."""


@dataclass(frozen=True)
class SetValues:
    """Of all sets that an arm trains on; shares are means over sets, weighted by images."""

    values: dict[str, float | None]
    """By the keys of COLUMNS."""
    devices: tuple[str, ...]
    """What the seconds are of: "cpu", or names of GPUs."""


def read_sets(arguments: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Contents of measures.json and fidelity.json, {"<data set>/<engine>": {"measures" or "fidelity": ...}}.

    Args:
        arguments: <data set>/<engine>=<path> of either file.

    Raises:
        InputError: another argument or file.
    """
    found: dict[str, dict[str, dict]] = {}
    for argument in arguments:
        name, _, path = argument.partition("=")
        kind = Path(path).stem
        if "/" not in name or kind not in ("measures", "fidelity"):
            raise InputError(
                f"--sets {argument}: expected <data set>/<engine>=.../measures.json or fidelity.json"
            )
        found.setdefault(name, {})[kind] = read_json(path, "measures of a set")
    return found


def set_values(
    settings: StudySettings, rows: Sequence[Row], sets: Mapping[str, dict[str, dict]]
) -> dict[str, SetValues]:
    """Values of each arm that has sets.

    "hours_per_point" is the time of all that was made for the offered images by points that the arm gains in
    the table's first metric; None unless that gain is more than chance. Trainings, which all arms have, are
    not in it.

    Raises:
        InputError: measures of a set were not given, or were made by another version.
    """
    result = {}
    for row in rows:
        if names := settings.sets.get(row.arm):
            parts = [_of_set(name, sets.get(name), name in settings.laid_out) for name in names]
            result[row.arm] = _of_arm(settings, row, parts)
    return result


def _of_set(name: str, contents: dict[str, dict] | None, laid_out: bool) -> tuple[dict, tuple[str, ...]]:
    try:
        measures = contents["measures"]
        own = {key: measures["set"][key] for key in ("images", "rejected", "seconds_per_offered")}
        layout = contents.get("fidelity", {}).get("layout", {}).get("all", {})
        return own | {
            "found": layout.get("found"),
            "layout_AP": layout.get("AP") if laid_out else None,
        }, tuple(measures["devices"])
    except (KeyError, TypeError):
        raise InputError(
            f"{name}: no measures of this set, or of another version; measure it again"
        ) from None


def _of_arm(settings: StudySettings, row: Row, parts: list[tuple[dict, tuple[str, ...]]]) -> SetValues:
    images = sum(values["images"] for values, _ in parts)

    def mean(key: str) -> float | None:
        known = [(values[key], values["images"]) for values, _ in parts]
        if not images or any(value is None for value, count in known if count):
            return None
        return sum(value * count for value, count in known if count) / images

    found = {key: mean(key) for key in ("rejected", "found", "layout_AP", "seconds_per_offered")}
    gain, hours = row.cells[settings.metrics[0]], None
    if gain.interval and gain.interval.low > 0 and found["seconds_per_offered"] is not None:
        hours = found["seconds_per_offered"] * images / 3600 / gain.delta.mean
    devices = tuple(sorted({device for _, them in parts for device in them}))
    return SetValues({"images": images, **found, "hours_per_point": hours}, devices)
