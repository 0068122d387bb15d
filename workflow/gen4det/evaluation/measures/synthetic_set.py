"""Measures of a synthetic set: how much it holds, what the filters kept, what it cost."""

from collections import Counter
from collections.abc import Iterable

NOT_CONFIRMED = frozenset({"no_match", "low_score", "low_iou"})
"""Reasons of the agreement filter."""
AFTER_AGREEMENT = frozenset({"max_instances", "nothing drawn in the image was kept"})
"""Reasons of filters that judge after it."""


def synthetic_set_measures(
    annotations: dict, rejected: dict, filtered: dict, drawn: Iterable[dict]
) -> dict[str, float | None]:
    """Measure one synthetic set.

    Counted are objects that were drawn: not those of a real image around them ("real"), not crowds.

    Args:
        annotations, rejected: what the stage `filter` wrote.
        filtered: its record.
        drawn: records of the shards.

    Returns:
        "images" and "labels" offered for training; "rejected", the share of drawn labels that are not, and
        "agreement", the share that the detector confirms of those it was asked about, both on 0-100 (None:
        nothing was drawn, or no detector was asked); "seconds_per_image", wall clock of drawing by images
        drawn (None: the records do not say).
    """
    kept = sum(map(_is_drawn, annotations["annotations"]))
    reasons = Counter(label["reason"] for label in rejected["rejected"] if _is_drawn(label))
    lost = reasons.total()
    refused = sum(reasons[reason] for reason in NOT_CONFIRMED)
    confirmed = kept + sum(reasons[reason] for reason in AFTER_AGREEMENT)
    was_asked = filtered["settings"]["filter"]["agreement"]["enabled"]
    seconds = [record.get("wall_seconds") for record in drawn]
    images = filtered.get("images_generated")
    return {
        "images": len(annotations["images"]),
        "labels": kept,
        "rejected": _percent(lost, kept + lost),
        "agreement": _percent(confirmed, confirmed + refused) if was_asked else None,
        "seconds_per_image": round(sum(seconds) / images, 3) if images and None not in seconds else None,
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _is_drawn(label: dict) -> bool:
    return not (label.get("real") or label.get("iscrowd"))
