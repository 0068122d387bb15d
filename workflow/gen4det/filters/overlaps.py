"""Labels that overlap a more certain one: greedy non-maximum suppression."""

from collections import defaultdict

import numpy as np

from gen4det.filters.agreement import box_iou


def overlapped(annotations: list[dict], most: float, *, among: str = "category") -> set[int]:
    """Ids of the labels that overlap a kept, more certain label by more than this.

    Compared are labels of the same image and labeller that have scores. Of equal scores the earlier one
    stays.

    Args:
        annotations: COCO records.
        most: intersection over union of boxes, from 0 to 1.
        among: "category": only labels of the same category are compared; "all": of different ones, too.
    """
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for annotation in annotations:
        if "score" in annotation:
            category = annotation["category_id"] if among == "category" else None
            key = annotation["image_id"], category, annotation.get("labeller")
            groups[key].append(annotation)
    refused: set[int] = set()
    for members in groups.values():
        members = sorted(members, key=lambda annotation: -annotation["score"])
        boxes = np.array([annotation["bbox"] for annotation in members])
        near = box_iou(boxes, boxes) > most
        stays = np.ones(len(members), dtype=bool)
        for place in range(len(members)):
            if stays[place]:
                stays[place + 1 :] &= ~near[place, place + 1 :]
        refused |= {annotation["id"] for annotation, kept in zip(members, stays, strict=True) if not kept}
    return refused
