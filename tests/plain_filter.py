"""What the filter decides, label by label on dictionaries: the reference that columns are held to."""

from collections import Counter

from gen4det.core.provenance import seed_for
from gen4det.filters.agreement import disagreements
from gen4det.filters.overlaps import overlapped
from gen4det.filters.settings import FilterSettings

ALONE = "nothing drawn in the image was kept"


def plain_verdicts(data: dict, settings: FilterSettings, scores: dict, threshold: float, found: dict) -> dict:
    """{annotation id: reason} of what is rejected."""
    images = {image["id"]: image for image in data["images"]}
    reasons: dict[int, str] = {}

    def judge(verdict) -> None:
        for label in data["annotations"]:
            if label["id"] not in reasons and (reason := verdict(label)) is not None:
                reasons[label["id"]] = reason

    def passed() -> list[dict]:
        return [a for a in data["annotations"] if a["id"] not in reasons and not a.get("iscrowd")]

    judge(lambda a: _whole_image(images[a["image_id"]], settings, scores, threshold))
    judge(lambda a: None if a.get("iscrowd") else _alone(a, images[a["image_id"]], settings))
    if settings.max_overlap is not None:
        refused = overlapped(passed(), settings.max_overlap, among=settings.max_overlap_among)
        judge(lambda a: "max_overlap" if a["id"] in refused else None)
    if settings.agreement.enabled:
        unclear = disagreements(data["annotations"], found, settings.agreement)
        judge(lambda a: unclear.get(a["id"]))
    if settings.max_instances is not None:
        count = Counter(a["image_id"] for a in passed())
        judge(lambda a: "max_instances" if count[a["image_id"]] > settings.max_instances else None)
    labelled = {a["image_id"] for a in passed() if not a.get("real")}
    judge(lambda a: None if a["image_id"] in labelled else ALONE)
    if settings.max_images is not None:
        ranked = sorted(labelled, key=lambda image: (seed_for(0, "max_images", image), image))
        judge(lambda a: None if a["image_id"] in ranked[: settings.max_images] else "max_images")
    return reasons


def _whole_image(image: dict, settings: FilterSettings, scores: dict, threshold: float) -> str | None:
    limit = settings.generations_per_reference
    if limit is not None and image.get("number", 0) >= limit:
        return "generations_per_reference"
    return "aesthetic" if settings.aesthetic.enabled and scores[image["id"]] < threshold else None


def _alone(label: dict, image: dict, settings: FilterSettings) -> str | None:
    short, long = sorted(label["bbox"][2:])
    share, score, least = (
        label["area"] / (image["height"] * image["width"]),
        label.get("score"),
        settings.min_score,
    )
    if isinstance(least, dict):
        least = least[str(label.get("labeller"))]
    if score is not None and (score < least or (settings.score_must_exceed and score == least)):
        return "min_score"
    if short < settings.min_box_side:
        return "min_box_side"
    if settings.max_aspect_ratio is not None and long > settings.max_aspect_ratio * short:
        return "max_aspect_ratio"
    if share < settings.min_area_fraction:
        return "min_area_fraction"
    return "max_area_fraction" if share > settings.max_area_fraction else None
