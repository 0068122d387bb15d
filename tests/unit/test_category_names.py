"""Categories of two data sets that are the same under other names."""

from gen4det.data.voc import CATEGORIES
from gen4det.evaluation.categories import match_categories

IN_COCO = {
    "aeroplane": "airplane", "bicycle": "bicycle", "bird": "bird", "boat": "boat", "bottle": "bottle",
    "bus": "bus", "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "diningtable": "dining table",
    "dog": "dog", "horse": "horse", "motorbike": "motorcycle", "person": "person",
    "pottedplant": "potted plant", "sheep": "sheep", "sofa": "couch", "train": "train", "tvmonitor": "tv",
}  # fmt: skip


def numbered(names, first: int) -> list[dict]:
    return [{"id": first + place, "name": name} for place, name in enumerate(names)]


def test_check_7_each_of_vocs_twenty_categories_is_its_counterpart_in_coco():
    assert set(IN_COCO) == set(CATEGORIES) and len(IN_COCO) == 20
    coco = numbered(["traffic light", *reversed(IN_COCO.values()), "sandwich"], 100)
    voc = numbered(CATEGORIES, 1)
    found = match_categories(coco, voc, partial=True, where="weights")
    of_coco, of_voc = ({it["id"]: it["name"] for it in them} for them in (coco, voc))
    assert {of_voc[own]: of_coco[other] for other, own in found.items()} == IN_COCO
