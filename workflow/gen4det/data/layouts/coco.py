"""COCO: annotations/instances_<split>.json and images/<split>/. FiftyOne, CVAT and Label Studio import it."""

import json
import shutil
from pathlib import Path

from gen4det.data.layouts.base import Layout, Picture, naming_full_disk
from gen4det.data.masks import area_of_rle, polygons_to_rle, rle_to_polygons

KEPT = ("bbox", "area", "segmentation")


class Coco(Layout):
    """One JSON file per split, with all categories; masks are polygons, with holes run-length codes."""

    title = "COCO"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._open: dict[str, _Lists] = {}

    def image_folder(self, split: str) -> str:
        return f"images/{split}"

    def add(self, split: str, picture: Picture, labels: list[dict]) -> None:
        if split not in self._open:
            self._open[split] = _Lists(self.root / f"annotations/.{split}")
        lists = self._open[split]
        lists.add(
            "images",
            {
                "id": picture.identifier,
                "file_name": picture.name,
                "width": picture.width,
                "height": picture.height,
                "origin": picture.origin,
            },
        )
        for label in labels:
            record = {key: label[key] for key in KEPT if key in label}
            if isinstance(record.get("segmentation"), dict) and not label["iscrowd"]:
                record["segmentation"] = self._outline(record["segmentation"])
            record |= {key: label[key] for key in ("id", "category_id", "iscrowd")}
            lists.add("annotations", record | {"image_id": picture.identifier})

    def _outline(self, rle: dict) -> list | dict:
        polygons = rle_to_polygons(rle)
        if polygons and area_of_rle(polygons_to_rle(polygons, *rle["size"])) == area_of_rle(rle):
            return polygons
        self.losses["masks with holes, kept as run-length codes, which some tools read for crowds only"] += 1
        return rle

    def finish(self) -> None:
        categories = [{"supercategory": ""} | category for category in self.categories]
        about = {"info": {"description": "made with Gen4Det; see README.md"}, "licenses": []}
        for split in self.splits:
            lists = self._open.get(split) or _Lists(self.root / f"annotations/.{split}")
            target = self.root / f"annotations/instances_{split}.json"
            lists.join(target, about, {"categories": categories})


class _Lists:
    """Lists of records that are written one by one, each to a file of its own, then joined in one object.

    Args:
        place: path of these files, without their endings.
    """

    def __init__(self, place: Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        self._paths = {name: place.with_name(f"{place.name}.{name}") for name in ("images", "annotations")}
        self._files = {name: open(path, "w", encoding="utf-8") for name, path in self._paths.items()}
        self._comma = dict.fromkeys(self._paths, "")

    def add(self, name: str, record: dict) -> None:
        with naming_full_disk(self._paths[name]):
            self._files[name].write(self._comma[name] + json.dumps(record))
        self._comma[name] = ", "

    def join(self, target: Path, before: dict, after: dict) -> None:
        """Write the object, the lists between what stands before and after them; their files go."""
        with naming_full_disk(target), open(target, "wb") as out:
            out.write(json.dumps(before)[:-1].encode())
            for name, path in self._paths.items():
                self._files[name].close()
                out.write(f', "{name}": ['.encode())
                with open(path, "rb") as file:
                    shutil.copyfileobj(file, out)
                out.write(b"]")
                path.unlink()
            out.write((", " + json.dumps(after)[1:] + "\n").encode())
