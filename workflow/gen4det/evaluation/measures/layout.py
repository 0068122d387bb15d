"""Does a generator draw what it was asked for, and where? A detector of real images says so.

Its detections in generated images are evaluated against the labels that were asked for, as if these were
the ground truth (as in GeoDiffusion and DetDiffusion). The detector misses objects in real images as well:
report the same number on real images beside it.
"""

from collections.abc import Container

from gen4det.core.errors import InputError
from gen4det.evaluation.average_precision import average_precision
from gen4det.evaluation.measures.registry import LAYOUT
from gen4det.evaluation.settings import MeasureSettings


def layout_average_precision(
    asked: dict,
    found: dict[str, list[list[float]]],
    *,
    settings: MeasureSettings | None = None,
    ignored: Container[int] = (),
) -> dict[str, float | None]:
    """Average precision of boxes, after COCO, of a detector on drawn images against the labels asked for.

    Args:
        asked: COCO dictionary of the drawn images with every label that was asked for, those that a filter
            rejected later included: they were asked for all the same. Categories are the detector's.
        found: by image id [category id, score, x, y, w, h], in pixels, as the stage `detect` stores it.
        settings: limits of small and medium objects.
        ignored: ids of labels that neither count as missed nor make detections on them wrong, as COCO does
            with
            crowds: those of real objects around what was drawn, or those of another attribute.

    Returns:
        {"AP", "AP50", "AP75", "APs", "APm", "APl"} on 0-100, None where undefined.

    Raises:
        InputError: no label was asked for; a detection of an unknown image or category.
    """
    if not asked["annotations"]:
        raise InputError("layout: no label was asked for in these images")
    detections = [
        {"image_id": int(image), "category_id": category, "score": score, "bbox": list(box)}
        for image, rows in found.items()
        for category, score, *box in rows
    ]
    wanted = [
        {key: label[key] for key in label if key != "segmentation"}
        | {"area": label.get("area", label["bbox"][2] * label["bbox"][3])}
        | ({"iscrowd": 1} if label["id"] in ignored else {})
        for label in asked["annotations"]
    ]
    limits = (settings or MeasureSettings()).area_limits
    measured = average_precision(
        asked | {"annotations": wanted},
        detections,
        protocol="coco",
        settings=MeasureSettings(kinds=("box",), area_limits=limits),
    )
    return {name: measured["box"][name] for name in LAYOUT}
