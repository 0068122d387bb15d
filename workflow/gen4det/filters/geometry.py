"""Filters that look at boxes, areas and counts alone."""

from gen4det.filters.settings import FilterSettings


def failed_filter(annotation: dict, image: dict, settings: FilterSettings) -> str | None:
    """Name of the first setting a label does not satisfy, in the order of the settings; None: it passes.

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


def split_labels(
    images: list[dict], annotations: list[dict], settings: FilterSettings
) -> tuple[list[dict], list[dict]]:
    """Labels that are kept, and those that are not, each with the "reason".

    Filters of single labels come first; then images that still have too many labels lose all of them.

    Returns:
        Kept records as they were; copies of the rejected ones. Both in the order of `annotations`.
    """
    image_of = {image["id"]: image for image in images}
    reasons = [failed_filter(a, image_of[a["image_id"]], settings) for a in annotations]
    if settings.max_instances is not None:
        passed = dict.fromkeys(image_of, 0)
        for annotation, reason in zip(annotations, reasons, strict=True):
            passed[annotation["image_id"]] += reason is None
        reasons = [
            "max_instances" if reason is None and passed[a["image_id"]] > settings.max_instances else reason
            for a, reason in zip(annotations, reasons, strict=True)
        ]
    labelled = list(zip(annotations, reasons, strict=True))
    kept = [annotation for annotation, reason in labelled if reason is None]
    rejected = [{**annotation, "reason": reason} for annotation, reason in labelled if reason is not None]
    return kept, rejected
