"""What a detector calls the objects that it is shown, and how well their boxes and masks agree."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

SHARED = 0.5
"""A detection is about an object if their boxes share at least this much of the smaller one: a label that
outlines but the hat of a snowman is still asked about the snowman."""


@dataclass(frozen=True)
class Call:
    """The answer to one label."""

    category_id: int
    """The label's."""
    called: int | None
    """Category of the detection; None: there is no answer."""
    box_iou: float
    """Of label and detection; 0 without an answer."""
    mask_iou: float | None
    """The same of their masks; None where one of them has none."""

    @property
    def right(self) -> bool:
        """Whether the detector calls the object by its label."""
        return self.called == self.category_id


def call_labels(labels: Sequence[dict], detections: Sequence[dict], min_score: float) -> list[Call]:
    """Ask the detections of an image about each of its labels.

    The answer is the detection with the highest score among those about the object, whatever its category.

    Args:
        labels: {"category_id", "bbox": [x, y, w, h] in pixels, "segmentation": run-length code, optional}.
        detections: the same with "score".
        min_score: of an answer.
    """
    detections = [found for found in detections if found["score"] >= min_score]
    if not detections:
        return [Call(label["category_id"], None, 0.0, None) for label in labels]
    boxes = np.array([found["bbox"] for found in detections])
    scores = np.array([found["score"] for found in detections])
    return [_call(label, detections, boxes, scores) for label in labels]


def _call(label: dict, detections: Sequence[dict], boxes: np.ndarray, scores: np.ndarray) -> Call:
    box = np.asarray(label["bbox"], dtype=float)
    sides = np.minimum(boxes[:, :2] + boxes[:, 2:], box[:2] + box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(min=0).prod(1)
    areas, area = boxes[:, 2:].prod(1), box[2:].prod()
    about = shared >= SHARED * np.minimum(areas, area)
    if not about.any():
        return Call(label["category_id"], None, 0.0, None)
    best = int(np.where(about, scores, -1).argmax())
    found = detections[best]
    masks = [record.get("segmentation") for record in (found, label)]
    mask_iou = float(coco_mask.iou(*([mask] for mask in masks), [0])[0, 0]) if all(masks) else None
    box_iou = float(shared[best] / (areas[best] + area - shared[best]))
    return Call(label["category_id"], found["category_id"], box_iou, mask_iou)


def summary(calls: Iterable[Call], names: Mapping[int, str]) -> dict:
    """Shares and means of many calls.

    Returns:
        {"objects": number, "called": share of them called by their label, "box_iou", "mask_iou": means over
        those that are, null if there are none, "instead": what the others are called, by frequency}.
    """
    calls = list(calls)
    right = [call for call in calls if call.right]
    wrong = [names.get(call.called, "nothing") for call in calls if not call.right]
    masks = [call.mask_iou for call in right if call.mask_iou is not None]
    return {
        "objects": len(calls),
        "called": _mean([call.right for call in calls]),
        "box_iou": _mean([call.box_iou for call in right]),
        "mask_iou": _mean(masks),
        "instead": dict(
            sorted(((name, wrong.count(name)) for name in set(wrong)), key=lambda item: (-item[1], item[0]))
        ),
    }


def by_category(calls: Sequence[Call], names: Mapping[int, str], groups: Mapping[int, str]) -> dict:
    """`summary` of all calls, of each frequency group, and of each category that there are labels of.

    Args:
        names, groups: name and LVIS frequency group of each category, by id.
    """
    found = {"all": summary(calls, names)}
    for letter, word in (("r", "rare"), ("c", "common"), ("f", "frequent")):
        found[word] = summary((call for call in calls if groups[call.category_id] == letter), names)
    asked = {call.category_id for call in calls}
    found["per_category"] = {
        name: summary((call for call in calls if call.category_id == key), names)
        for key, name in names.items()
        if key in asked
    }
    return found


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None
