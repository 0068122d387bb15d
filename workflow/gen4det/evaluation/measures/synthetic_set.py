"""Measures of a synthetic set: how much it holds, what the filters kept, what it cost."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

NOT_CONFIRMED = frozenset({"no_match", "low_score", "low_iou"})
"""Reasons of the agreement filter."""
SPARE = "max_images"
"""Reason for not offering what passed all filters."""
AFTER_AGREEMENT = frozenset({"max_instances", "nothing drawn in the image was kept", SPARE})
"""Reasons of filters that judge after it."""
NOT_JUDGED = "generations_per_reference"
"""Reason for not using images at all."""
ONCE = ("fit", "detector", "detect_real", "calibrate")
"""What is made once, however many images are drawn: fitted models, detectors that label, what is measured on
the real images."""


def synthetic_set_measures(
    annotations: dict,
    rejected: dict,
    filtered: dict,
    drawn: Iterable[dict],
    others: Mapping[str, Sequence[dict]] | None = None,
) -> dict[str, float | None]:
    """Measure one synthetic set.

    Counted are objects that were drawn: not those of a real image around them ("real"), not crowds. What the
    set may not use at all counts nowhere; what passed every filter and is spare counts as kept.

    Args:
        annotations, rejected: what the stage `filter` wrote.
        filtered: its record.
        drawn: records of the shards.
        others: records of all else that was made for this set, by kind: those of `ONCE` for the set as a
            whole, others for the images that were drawn.

    Returns:
        "images" and "labels" offered for training; "rejected", the share of drawn labels that no filter
        passes, and "agreement", the share that the detector confirms of those it was asked about, both on
        0-100 (None: nothing was drawn, or no detector was asked); "seconds_per_image", wall clock of drawing
        by images drawn; "seconds_per_offered", that of everything by images offered, where images that are
        spare bear their part of what was drawn (None: the records do not say).
    """
    kept = sum(map(_is_drawn, annotations["annotations"]))
    reasons = Counter(label["reason"] for label in rejected["rejected"] if _is_drawn(label))
    spare = reasons[SPARE]
    lost = reasons.total() - spare - reasons[NOT_JUDGED]
    refused = sum(reasons[reason] for reason in NOT_CONFIRMED)
    confirmed = kept + sum(reasons[reason] for reason in AFTER_AGREEMENT)
    was_asked = filtered["settings"]["filter"]["agreement"]["enabled"]
    seconds = spent({"draw": list(drawn)} | dict(others or {}))
    images, drawing = filtered.get("images_generated"), seconds["draw"]
    offered = len(annotations["images"])
    return {
        "images": offered,
        "labels": kept,
        "rejected": _percent(lost, kept + spare + lost),
        "agreement": _percent(confirmed, confirmed + refused) if was_asked else None,
        "seconds_per_image": round(drawing / images, 3) if images and drawing is not None else None,
        "seconds_per_offered": _per_offered(seconds, offered, _passed(annotations, rejected)),
    }


def spent(records: Mapping[str, Sequence[dict]]) -> dict[str, float | None]:
    """Wall clock of each kind of job in seconds; None where a record does not say. 0 where there is none."""
    found = {kind: [record.get("wall_seconds") for record in some] for kind, some in records.items()}
    return {kind: None if None in some else round(sum(some), 3) for kind, some in found.items()}


def devices(records: Iterable[dict]) -> list[str]:
    """What the jobs ran on: "cpu", or names of GPUs."""
    return sorted({record.get("device", "cpu") for record in records})


def _per_offered(seconds: Mapping[str, float | None], offered: int, passed: int) -> float | None:
    if None in seconds.values() or not offered:
        return None
    once = sum(value for kind, value in seconds.items() if kind in ONCE)
    return round(once / offered + (sum(seconds.values()) - once) / passed, 3)


def _passed(annotations: dict, rejected: dict) -> int:
    """Images that pass all filters, offered or spare."""
    spare = {label["image_id"] for label in rejected["rejected"] if label["reason"] == SPARE}
    return len(annotations["images"]) + len(spare)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _is_drawn(label: dict) -> bool:
    return not (label.get("real") or label.get("iscrowd"))
