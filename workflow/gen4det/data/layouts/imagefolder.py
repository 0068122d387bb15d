"""Hugging Face `imagefolder`: <split>/ with the images and metadata.jsonl."""

import json
from typing import TextIO

from gen4det.data.layouts.base import Layout, Picture
from gen4det.data.masks import segmentation_to_rle


class ImageFolder(Layout):
    """A line of JSON for each image; its objects are lists of equal length, masks COCO's run-length codes."""

    title = "Hugging Face imagefolder"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._files: dict[str, TextIO] = {}

    def image_folder(self, split: str) -> str:
        return split

    def add(self, split: str, picture: Picture, labels: list[dict]) -> None:
        objects: dict[str, list] = {
            "id": [label["id"] for label in labels],
            "bbox": [[float(value) for value in label["bbox"]] for label in labels],
            "category": [self.names[label["category_id"]] for label in labels],
            "category_id": [label["category_id"] for label in labels],
            "area": [float(label["area"]) for label in labels],
            "iscrowd": [label["iscrowd"] for label in labels],
        }
        if self.masks != "none":
            objects["mask"] = [_mask(label, picture) for label in labels]
        line = {
            "file_name": picture.name,
            "image_id": picture.identifier,
            "width": picture.width,
            "height": picture.height,
            "origin": picture.origin,
            "objects": objects,
        }
        if split not in self._files:
            (self.root / split).mkdir(parents=True, exist_ok=True)
            self._files[split] = open(self.root / split / "metadata.jsonl", "w")
        self._files[split].write(json.dumps(line) + "\n")

    def finish(self) -> None:
        for file in self._files.values():
            file.close()


def _mask(label: dict, picture: Picture) -> str:
    """Counts of a run-length code of the image's size; empty without a mask."""
    if not label.get("segmentation"):
        return ""
    return segmentation_to_rle(label["segmentation"], picture.height, picture.width)["counts"]
