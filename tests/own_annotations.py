"""A small data set of one's own: 12 training and 6 validation images of 96 x 72 px, two rectangles each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gen4det.data.annotations import write_annotations
from gen4det.data.images import encode_image
from gen4det.data.source_settings import PhotographsDataset

WIDTH, HEIGHT = 96, 72
SPLITS = {"train": 12, "val": 6}
CATEGORIES = [{"id": 1, "name": "cup"}, {"id": 2, "name": "fish"}]


def rectangle(identifier: int, image: int, category: int, x: int, y: int, w: int, h: int) -> dict:
    """An annotation as annotation tools write it."""
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "id": identifier, "image_id": image, "category_id": category, "bbox": [x, y, w, h],
        "segmentation": [polygon], "area": w * h, "iscrowd": 0,
    }  # fmt: skip


def annotations(split: str) -> dict:
    """Image k shows a cup of 20 x 16 px and a fish of 24 x 30 px."""
    images, labels = [], []
    for k in range(SPLITS[split]):
        images.append({"id": k + 1, "file_name": f"{split}{k}.png", "width": WIDTH, "height": HEIGHT})
        labels.append(rectangle(2 * k + 1, k + 1, 1, 5 + k, 10, 20, 16))
        labels.append(rectangle(2 * k + 2, k + 1, 2, 50 + k, 30, 24, 30))
    return {"images": images, "annotations": labels, "categories": [dict(c) for c in CATEGORIES]}


Change = Callable[[dict], object]


def write(folder: Path, *, train: Change | None = None, val: Change | None = None) -> Path:
    """Write both splits; a change edits the annotations before they are written."""
    for split, change in (("train", train), ("val", val)):
        data = annotations(split)
        rng = np.random.default_rng(SPLITS[split])
        (folder / split).mkdir(parents=True, exist_ok=True)
        for image in data["images"]:
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            (folder / split / image["file_name"]).write_bytes(encode_image(pixels, "png"))
        if change:
            change(data)
        write_annotations(folder / f"{split}.json", data)
    return folder


def settings(folder: Path, **options: object) -> PhotographsDataset:
    """The data set's entry in a scale file."""
    splits = {s: {"annotations": str(folder / f"{s}.json"), "images": str(folder / s)} for s in SPLITS}
    return PhotographsDataset(source="photographs", **({"format": "coco"} | splits | options))
