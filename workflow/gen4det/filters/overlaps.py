"""Labels that overlap a more certain one of their kind: greedy non-maximum suppression."""

from collections import defaultdict

import numpy as np

from gen4det.filters.agreement import box_iou


def overlapped(annotations: list[dict], most: float) -> set[int]:
    """Ids of the labels that overlap a kept, more certain label by more than this.

    Compared are labels of the same image, category and labeller that have scores. Of equal scores the earlier
    one stays.

    Args:
        annotations: COCO records.
        most: intersection over union of boxes, from 0 to 1.
    """
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for annotation in annotations:
        if "score" in annotation:
            key = annotation["image_id"], annotation["category_id"], annotation.get("labeller")
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
