"""Whether a detector confirms a label (Gen2Det's instance-level filter)."""

from collections import defaultdict

import numpy as np

from gen4det.filters.settings import AgreementSettings

NO_MATCH, LOW_SCORE, LOW_IOU = "no_match", "low_score", "low_iou"


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Overlaps (intersection over union), float64 (N, M) in [0, 1], of boxes [x, y, w, h] (N, 4), (M, 4).

    Boxes are continuous, as in COCO's own `maskUtils.iou`; empty ones overlap nothing.
    """
    boxes, others = boxes[:, None].astype(float), others[None].astype(float)
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = np.prod(boxes[..., 2:], axis=-1) + np.prod(others[..., 2:], axis=-1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def compact(detections: list[dict]) -> dict[str, list[list[float]]]:
    """Detections as they are stored: by image id [category id, score, x, y, w, h], in pixels, best first.

    At full scale there are tens of millions: six numbers each, rounded to a thousandth of a pixel.

    Args:
        detections: as `detection.inference.predict` gives them.
    """
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for found in detections:
        box = [round(value, 3) for value in found["bbox"]]
        rows[str(found["image_id"])].append([found["category_id"], round(found["score"], 6), *box])
    return {image: sorted(found, key=lambda row: -row[1]) for image, found in rows.items()}


def disagreements(
    annotations: list[dict], detections: dict[str, list[list[float]]], settings: AgreementSettings
) -> dict[int, str]:
    """Annotation id -> why the detector does not confirm it. Confirmed labels are not in it.

    Neither are labels whose pixels are those of a real image ("real"), about which there is no doubt, and
    crowds, which are regions to ignore rather than objects.

    Args:
        detections: as `compact` gives them, of at least the same images.
    """
    by_image: dict[int, list[dict]] = defaultdict(list)
    for annotation in annotations:
        if not (annotation.get("real") or annotation.get("iscrowd")):
            by_image[annotation["image_id"]].append(annotation)
    found: dict[int, str] = {}
    for image, labels in by_image.items():
        reasons = unconfirmed(labels, detections.get(str(image), []), settings)
        found |= {label["id"]: why for label, why in zip(labels, reasons, strict=True) if why is not None}
    return found


def unconfirmed(
    labels: list[dict], detections: list[list[float]], settings: AgreementSettings
) -> list[str | None]:
    """Why the detector does not confirm each label of one image; None: it does.

    A detection may confirm several labels. Only those of the label's category count, with `same_class`.

    Args:
        labels: records with "bbox" [x, y, w, h] in pixels and "category_id".
        detections: [category id, score, x, y, w, h], best first; `max_per_image` of them are used.

    Returns:
        Per label None, "low_score": detections overlap enough, but none is confident enough; "low_iou":
        confident ones touch it, but none overlaps enough; or "no_match".
    """
    if not labels or not detections:
        return [NO_MATCH] * len(labels)
    best = np.array(detections[: settings.max_per_image], dtype=float)
    iou = box_iou(np.array([label["bbox"] for label in labels]), best[:, 2:])
    candidate = np.ones_like(iou, dtype=bool)
    if settings.same_class:
        candidate = np.array([label["category_id"] for label in labels])[:, None] == best[:, 0]
    near = candidate & (iou >= settings.min_iou)
    touching = candidate & (iou > 0)
    sure = best[:, 1] >= settings.min_score
    confirmed, low_score, low_iou = (near & sure).any(1), near.any(1), (touching & sure).any(1)
    reasons = np.select([confirmed, low_score, low_iou], ["", LOW_SCORE, LOW_IOU], NO_MATCH)
    return [str(reason) or None for reason in reasons]
