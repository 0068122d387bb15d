"""Filters that look at the box and the area of a label alone."""

from gen4det.core.errors import InputError
from gen4det.core.settings import suggest
from gen4det.filters.settings import FilterSettings


def failed_filter(annotation: dict, image: dict, settings: FilterSettings) -> str | None:
    """Name of the first of these settings a label does not satisfy, in their order; None: it passes.

    Args:
        annotation: COCO record with "bbox" [x, y, width, height] and "area" in pixels, "score" optional.
        image: its COCO record.
    """
    short, long = sorted(annotation["bbox"][2:])
    share = annotation["area"] / (image["height"] * image["width"])
    score, least = annotation.get("score"), least_score(annotation, settings)
    if score is not None and (score < least or (settings.score_must_exceed and score == least)):
        return "min_score"
    if short < settings.min_box_side:
        return "min_box_side"
    if settings.max_aspect_ratio is not None and long > settings.max_aspect_ratio * short:
        return "max_aspect_ratio"
    if share < settings.min_area_fraction:
        return "min_area_fraction"
    if share > settings.max_area_fraction:
        return "max_area_fraction"
    return None


def least_score(annotation: dict, settings: FilterSettings) -> float:
    """The threshold for the label's labeller.

    Raises:
        InputError: there is a threshold for each labeller, but none for this one.
    """
    if not isinstance(settings.min_score, dict):
        return settings.min_score
    labeller = str(annotation.get("labeller"))
    if labeller not in settings.min_score:
        known = suggest(labeller, settings.min_score)
        raise InputError(f"filter.min_score: no threshold for the labels of {labeller!r}{known}")
    return settings.min_score[labeller]
