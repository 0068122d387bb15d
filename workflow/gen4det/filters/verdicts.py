"""Keep each label, or reject it for the first filter it fails. Filters run in the order of the settings."""

from collections import Counter
from collections.abc import Callable

from gen4det.core.provenance import seed_for
from gen4det.filters.label_filters import failed_filter
from gen4det.filters.measurements import Measurements
from gen4det.filters.overlaps import overlapped
from gen4det.filters.settings import FilterSettings

UNUSED = "generations_per_reference"
"""Reason for rejecting images beyond the number of generations per reference that the settings ask for."""

BEYOND = "max_images"
"""Reason for not offering images that pass every filter, beyond the number that the settings ask for."""

ALONE = "nothing drawn in the image was kept"
"""Reason for rejecting crowds and untouched real objects that pass every filter, in an image where no
generated object does."""


def split_labels(
    images: list[dict],
    annotations: list[dict],
    settings: FilterSettings,
    measured: Measurements = Measurements(),  # noqa: B008  (immutable)
) -> tuple[list[dict], list[dict]]:
    """Labels that are kept, and those that are not, each with the "reason".

    Whole images are judged first, then single labels; then images that still have too many labels lose all of
    them. Crowds are regions to ignore, not objects, and untouched objects of a real image ("real") were
    not generated: both are kept as long as a generated object of their image is.

    Args:
        images, annotations: COCO records; what the engine itself has rejected is not among them.
        measured: what the aesthetic and the agreement filter look at, where they are on.

    Returns:
        Kept records as they were; copies of the rejected ones. Both in the order of `annotations`.
    """
    image_of = {image["id"]: image for image in images}
    dropped = {image["id"]: refused_image(image, settings, measured) for image in images}
    reasons: dict[int, str] = {}  # by annotation id

    def judge(verdict: Callable[[dict], str | None]) -> None:
        for annotation in annotations:
            if annotation["id"] not in reasons and (reason := verdict(annotation)) is not None:
                reasons[annotation["id"]] = reason

    def passed() -> list[dict]:
        return [a for a in annotations if a["id"] not in reasons and not a.get("iscrowd")]

    judge(lambda a: dropped[a["image_id"]])
    judge(lambda a: None if a.get("iscrowd") else failed_filter(a, image_of[a["image_id"]], settings))
    if settings.max_overlap is not None:
        refused = overlapped(passed(), settings.max_overlap)
        judge(lambda a: "max_overlap" if a["id"] in refused else None)
    if settings.agreement.enabled:
        judge(lambda a: measured.disagreements.get(a["id"]))
    if settings.max_instances is not None:
        count = Counter(a["image_id"] for a in passed())
        judge(lambda a: "max_instances" if count[a["image_id"]] > settings.max_instances else None)
    labelled = {a["image_id"] for a in passed() if not a.get("real")}
    judge(lambda a: None if a["image_id"] in labelled else ALONE)
    if settings.max_images is not None:
        offered = set(sorted(labelled, key=_place)[: settings.max_images])
        judge(lambda a: None if a["image_id"] in offered else BEYOND)
    kept = [a for a in annotations if a["id"] not in reasons]
    rejected = [{**a, "reason": reasons[a["id"]]} for a in annotations if a["id"] in reasons]
    return kept, rejected


def _place(image_id: int) -> tuple[int, int]:
    """Where an image stands among those that may be offered."""
    return seed_for(0, BEYOND, image_id), image_id


def refused_image(image: dict, settings: FilterSettings, measured: Measurements) -> str | None:
    """Name of the first setting that drops the whole image; None: it passes.

    Args:
        image: its record; "number" counts, from 0, the images generated from one reference image.
    """
    limit = settings.generations_per_reference
    if limit is not None and image.get("number", 0) >= limit:
        return UNUSED
    if settings.aesthetic.enabled and measured.scores[image["id"]] < measured.threshold:
        return "aesthetic"
    return None
