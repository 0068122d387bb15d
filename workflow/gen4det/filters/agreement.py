"""Whether a detector confirms a label (Gen2Det's instance-level filter)."""

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


def unconfirmed(labels: list[dict], detections: list[dict], settings: AgreementSettings) -> list[str | None]:
    """Why the detector does not confirm each label of one image; None: it does.

    A detection may confirm several labels. Only those of the label's category count, with `same_class`.

    Args:
        labels: records with "bbox" [x, y, w, h] in pixels and "category_id".
        detections: the same with "score"; the best `max_per_image` are used.

    Returns:
        Per label None, "low_score": detections overlap enough, but none is confident enough; "low_iou":
        confident ones touch it, but none overlaps enough; or "no_match".
    """
    if not labels or not detections:
        return [NO_MATCH] * len(labels)
    best = sorted(detections, key=lambda detection: -detection["score"])[: settings.max_per_image]
    iou = box_iou(_column(labels, "bbox"), _column(best, "bbox"))
    if settings.same_class:
        same = _column(labels, "category_id")[:, None] == _column(best, "category_id")
        iou = np.where(same, iou, 0.0)
    else:
        same = np.ones_like(iou, dtype=bool)
    near = same & (iou >= settings.min_iou)
    sure = _column(best, "score") >= settings.min_score
    confirmed = (near & sure).any(1)
    low_score, low_iou = near.any(1), ((iou > 0) & sure).any(1)
    reasons = np.select([confirmed, low_score, low_iou], ["", LOW_SCORE, LOW_IOU], NO_MATCH)
    return [str(reason) or None for reason in reasons]


def _column(records: list[dict], key: str) -> np.ndarray:
    return np.array([record[key] for record in records])
