"""COCO: annotations/instances_<split>.json and images/<split>/. FiftyOne, CVAT and Label Studio import it."""

import json

from gen4det.data.layouts.base import Layout, Picture
from gen4det.data.masks import area_of_rle, polygons_to_rle, rle_to_polygons

KEPT = ("bbox", "area", "segmentation")


class Coco(Layout):
    """One JSON file per split, with all categories; masks are polygons, with holes run-length codes."""

    title = "COCO"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.images: dict[str, list[dict]] = {split: [] for split in self.splits}
        self.annotations: dict[str, list[dict]] = {split: [] for split in self.splits}

    def image_folder(self, split: str) -> str:
        return f"images/{split}"

    def add(self, split: str, picture: Picture, labels: list[dict]) -> None:
        self.images[split].append(
            {
                "id": picture.identifier,
                "file_name": picture.name,
                "width": picture.width,
                "height": picture.height,
                "origin": picture.origin,
            }
        )
        for label in labels:
            record = {key: label[key] for key in KEPT if key in label}
            if isinstance(record.get("segmentation"), dict) and not label["iscrowd"]:
                record["segmentation"] = self._outline(record["segmentation"])
            record |= {key: label[key] for key in ("id", "category_id", "iscrowd")}
            self.annotations[split].append(record | {"image_id": picture.identifier})

    def _outline(self, rle: dict) -> list | dict:
        polygons = rle_to_polygons(rle)
        if polygons and area_of_rle(polygons_to_rle(polygons, *rle["size"])) == area_of_rle(rle):
            return polygons
        self.losses["masks with holes, kept as run-length codes, which some tools read for crowds only"] += 1
        return rle

    def finish(self) -> None:
        for split in self.splits:
            data = {
                "info": {"description": "made with Gen4Det; see README.md"},
                "licenses": [],
                "images": self.images[split],
                "annotations": self.annotations[split],
                "categories": [{"supercategory": ""} | category for category in self.categories],
            }
            self.write(f"annotations/instances_{split}.json", json.dumps(data) + "\n")
