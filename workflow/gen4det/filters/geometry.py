"""Filters that look at the box and the area of a label alone."""

from gen4det.filters.settings import FilterSettings


def failed_filter(annotation: dict, image: dict, settings: FilterSettings) -> str | None:
    """Name of the first of these settings a label does not satisfy, in their order; None: it passes.

    Args:
        annotation: COCO record with "bbox" [x, y, width, height] and "area" in pixels, "score" optional.
        image: its COCO record.
    """
    short, long = sorted(annotation["bbox"][2:])
    share = annotation["area"] / (image["height"] * image["width"])
    if annotation.get("score", 1.0) < settings.min_score:
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
