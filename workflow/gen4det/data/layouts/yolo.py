"""YOLO as ultralytics reads it: data.yaml, images/<split>/, labels/<split>/ with a text file per image."""

import numpy as np
import yaml

from gen4det.data.layouts.base import Layout, Picture


class Yolo(Layout):
    """Polygons where every object of the set has a mask, else boxes; no objects, an empty file.

    Numbers of classes are the places of the categories; an object is one polygon, its parts joined by seams
    of no width.
    """

    title = "YOLO"

    def image_folder(self, split: str) -> str:
        return f"images/{split}"

    def add(self, split: str, picture: Picture, labels: list[dict]) -> None:
        lines = []
        for label in labels:
            if label["iscrowd"]:
                self.losses["crowd regions, left out: their objects count as background"] += 1
                continue
            if self.masks == "some" and label.get("segmentation"):
                self.losses["masks, left out: where some objects have none, all are boxes"] += 1
            numbers = self._polygon(label, picture) if self.masks == "all" else _box(label, picture)
            if numbers is None:
                continue
            position = self.position[label["category_id"]]
            lines.append(" ".join([str(position), *(f"{it:.7g}" for it in numbers)]))
        stem = picture.name.rpartition(".")[0]
        self.write(f"labels/{split}/{stem}.txt", "".join(f"{line}\n" for line in lines))

    def _polygon(self, label: dict, picture: Picture) -> list[float] | None:
        parts = [np.reshape(it, (-1, 2)) for it in self.polygons(label, picture)]
        if not parts:
            self.losses["masks of no pixel, left out"] += 1
            return None
        if len(parts) > 1:
            self.losses["masks of several parts, joined by seams of no width"] += 1
        outline = joined(parts) / (picture.width, picture.height)
        return np.clip(outline, 0, 1).reshape(-1).tolist()

    def finish(self) -> None:
        for split in ("train", "val"):
            (self.root / f"images/{split}").mkdir(parents=True, exist_ok=True)
            (self.root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        head = "# Made with Gen4Det; see README.md. Without a key `path`, folders count from this file.\n"
        if "val" not in self.splits:
            head += "# images/val and labels/val are empty: put validation images of your own there.\n"
        values = {
            "train": "images/train",
            "val": "images/val",
            "names": {place: category["name"] for place, category in enumerate(self.categories)},
        }
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        self.write("data.yaml", head + text)


def _box(label: dict, picture: Picture) -> list[float]:
    """Centre and size in shares of the image, clipped to it: readers refuse what exceeds 1."""
    x, y, w, h = label["bbox"]
    left, right = np.clip([x, x + w], 0, picture.width) / picture.width
    top, bottom = np.clip([y, y + h], 0, picture.height) / picture.height
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """One closed outline around several: each is entered and left at the point nearest to those before.

    Args:
        parts: (N, 2) each.

    Returns:
        (M, 2), of the same area as all parts together.
    """
    outline, *others = sorted(parts, key=len, reverse=True)
    for other in others:
        distances = np.square(outline[:, None] - other[None]).sum(-1)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        loop = np.concatenate([other[there:], other[: there + 1]])
        outline = np.concatenate([outline[: here + 1], loop, outline[here:]])
    return outline
