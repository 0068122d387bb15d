"""How faithful a set of generated images is to what was asked for, as a whole and by attribute. No torch.

Measured is what was drawn, not what a filter left of it: labels that were rejected later were asked for, too.
"""

from collections.abc import Sequence

import numpy as np

from gen4det.evaluation.measures.layout import layout_average_precision
from gen4det.filters.agreement import box_iou

RECALL_IOU, RECALL_SCORE = 0.5, 0.5
"""An object counts as found where a detection of its category overlaps it and is as sure as this."""
ALL = "all"


def asked_for(shards: Sequence[dict]) -> dict:
    """What the labels of all shards of a set ask for, as one COCO dictionary.

    Labels get new ids. Each has "drawn": false for real objects around the drawn ones and for crowds, and
    "attribute", where the engine gave its objects one: the image's record has a list of them, in their order.
    """
    images, labels = [], []
    for shard in shards:
        attributes = {image["id"]: image.get("attributes") for image in shard["images"]}
        places: dict[int, int] = {}
        images += shard["images"]
        for label in [*shard["annotations"], *shard["rejected"]]:
            image = label["image_id"]
            place = places[image] = places.get(image, -1) + 1
            given = attributes[image]
            labels.append({
                "id": len(labels) + 1,
                "image_id": image,
                "category_id": label["category_id"],
                "bbox": label["bbox"],
                "iscrowd": int(bool(label.get("iscrowd"))),
                "drawn": not (label.get("real") or label.get("iscrowd")),
                "attribute": given[place] if given and place < len(given) else None,
            })  # fmt: skip
    categories = shards[0]["categories"] if shards else []
    return {"images": images, "annotations": labels, "categories": categories}


def attributes_in(asked: dict) -> list[str]:
    """Attributes that some drawn label has, in alphabetical order."""
    return sorted({it["attribute"] for it in asked["annotations"] if it["drawn"] and it["attribute"]})


def layout_fidelity(asked: dict, found: dict[str, list[list[float]]]) -> dict[str, dict]:
    """Average precision of the layout and share of objects found, of all drawn objects and of each attribute.

    Args:
        asked: see `asked_for`.
        found: by image id [category id, score, x, y, w, h], best first.

    Returns:
        {"all" or an attribute: {"AP", ..., "found": share in percent, "objects": how many}}.
    """
    recognised = objects_found(asked, found)
    result = {}
    for group in (ALL, *attributes_in(asked)):
        members = {it["id"] for it in asked["annotations"] if it["drawn"] and group in (ALL, it["attribute"])}
        if members:
            others = {it["id"] for it in asked["annotations"]} - members
            values = layout_average_precision(asked, found, ignored=others)
            share = 100 * sum(number in recognised for number in members) / len(members)
            result[group] = {**values, "found": share, "objects": len(members)}
    return result


def objects_found(asked: dict, found: dict[str, list[list[float]]]) -> set[int]:
    """Ids of the labels that a sure detection of their category overlaps."""
    by_image: dict[int, list[dict]] = {}
    for label in asked["annotations"]:
        by_image.setdefault(label["image_id"], []).append(label)
    recognised = set()
    for image, labels in by_image.items():
        rows = np.array([it for it in found.get(str(image), []) if it[1] >= RECALL_SCORE], float).reshape(
            -1, 6
        )
        near = box_iou(np.array([it["bbox"] for it in labels]), rows[:, 2:]) >= RECALL_IOU
        near &= np.array([it["category_id"] for it in labels])[:, None] == rows[:, 0]
        recognised |= {label["id"] for label, hit in zip(labels, near.any(1), strict=True) if hit}
    return recognised


def named_rightly(asked: dict, named: dict[int, bool]) -> dict[str, float | None]:
    """Share, in percent, of drawn objects that CLIP calls by their own category, by attribute.

    Args:
        named: label id -> whether; labels that are not in it were too small to look at.
    """
    result = {}
    for group in (ALL, *attributes_in(asked)):
        verdicts = [
            named[it["id"]]
            for it in asked["annotations"]
            if it["drawn"] and it["id"] in named and group in (ALL, it["attribute"])
        ]
        result[group] = 100 * sum(verdicts) / len(verdicts) if verdicts else None
    return result
