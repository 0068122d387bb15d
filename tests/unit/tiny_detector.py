"""A data set and a Mask R-CNN that are trained in a second."""

from pathlib import Path

import numpy as np

from gen4det.core.provenance import write_json
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import Dataset, DatasetDescriptor, SplitDescriptor, load_dataset, write_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.masks import mask_to_rle

SIZE = 64
CATEGORIES = [  # ids with gaps, not in order
    {"id": 20, "name": "ring", "frequency": "r"},
    {"id": 3, "name": "square", "frequency": "f"},
    {"id": 7, "name": "disc", "frequency": "c"},
]
COLOURS = {3: (220, 40, 40), 7: (40, 200, 60), 20: (50, 60, 230)}


def draw(rng: np.random.Generator, categories: list[int]) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """An image, uint8 (SIZE, SIZE, 3), and its objects as (category id, mask)."""
    image = rng.integers(90, 130, (SIZE, SIZE, 3)).astype(np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    objects = []
    for category in categories:
        radius = rng.integers(8, 14)
        cy, cx = rng.integers(radius, SIZE - radius, 2)
        distance = np.hypot(y - cy, x - cx)
        mask = {
            3: np.maximum(abs(y - cy), abs(x - cx)) < radius,
            7: distance < radius,
            20: (distance < radius) & (distance > radius - 4),
        }[category]
        image[mask] = COLOURS[category]
        objects = [(other, old & ~mask) for other, old in objects] + [(category, mask)]
    return image, [(category, mask) for category, mask in objects if mask.sum() > 20]


def write_images(archive: Path, contents: list[list[int]], seed: int, prefix: str = "") -> dict:
    """Draw images into a zip; returns their COCO dictionary."""
    rng = np.random.default_rng(seed)
    data = {"images": [], "annotations": [], "categories": CATEGORIES}
    with ShardWriter(archive) as writer:
        for number, categories in enumerate(contents, start=1):
            image, objects = draw(rng, categories)
            name = f"{number:06d}.png"
            writer.add(name, encode_image(image, "png"))
            data["images"].append({"id": number, "file_name": prefix + name, "height": SIZE, "width": SIZE})
            for category, mask in objects:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
                data["annotations"].append(
                    {
                        "id": len(data["annotations"]) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [float(value) for value in box],
                        "area": float(mask.sum()),
                        "segmentation": mask_to_rle(mask),
                        "iscrowd": 0,
                    }
                )
    return data


def tiny_dataset(folder: Path, contents: list[list[int]] | None = None) -> Dataset:
    """A data set of two dozen images, half a dozen for validation; images lie in zips."""
    contents = contents or [[3], [3, 7], [7, 3], [3, 20], [7], [3, 3]] * 4
    for split, chosen, seed in (("train", contents, 1), ("val", contents[:6], 2)):
        write_annotations(folder / f"{split}.json", write_images(folder / f"{split}.zip", chosen, seed))
    write_dataset(
        folder / "dataset.json",
        DatasetDescriptor(
            name="tiny",
            format="lvis",
            train=SplitDescriptor(annotations="train.json", images="train.zip"),
            val=SplitDescriptor(annotations="val.json", images="val.zip"),
        ),
    )
    return load_dataset(folder / "dataset.json")


def tiny_synthetic(folder: Path, contents: list[list[int]]) -> Path:
    """A synthetic set: annotations over shards, images inside the shard's zip."""
    data = write_images(folder / "shards" / "00000.zip", contents, seed=9, prefix="00000.zip/")
    write_json(folder / "annotations.json", {**data, "info": {"images": "shards"}})
    return folder / "annotations.json"


def tiny_config(folder: Path, **changes: object) -> Path:
    """A config file on top of the miniature's, everything a size smaller still."""
    miniature = Path(__file__).parents[2] / "config" / "detectors" / "miniature_mask_rcnn.py"
    text = f"""
_base_ = {str(miniature)!r}
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=16))),
)
batch_size = 2
max_iters = 6
optim_wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9))
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4)]
"""
    for key, value in changes.items():
        text += f"{key} = {value!r}\n"
    path = folder / "tiny_detector.py"
    path.write_text(text)
    return path


class StopAfter:
    """A stop that is reached after some iterations."""

    def __init__(self, iterations: int):
        self.left = iterations

    def step(self) -> None:
        self.left -= 1

    def reached(self) -> bool:
        return self.left <= 0
