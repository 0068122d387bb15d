"""The small data set of `own_annotations` in other layouts, as tools of those layouts write them."""

import json
import shutil
from pathlib import Path

import own_annotations
from own_annotations import HEIGHT, SPLITS, WIDTH

NAMES = {1: "cup", 2: "fish"}


def coco(folder: Path, **changes: own_annotations.Change) -> Path:
    """annotations/instances_<split>.json, images/<split>/*."""
    own_annotations.write(folder, **changes)
    (folder / "annotations").mkdir()
    (folder / "images").mkdir()
    for split in SPLITS:
        (folder / f"{split}.json").rename(folder / "annotations" / f"instances_{split}.json")
        (folder / split).rename(folder / "images" / split)
    return folder


def coco_of_one_split(folder: Path, **changes: own_annotations.Change) -> Path:
    """result.json, images/*: the training split alone."""
    own_annotations.write(folder, **changes)
    (folder / "train.json").rename(folder / "result.json")
    (folder / "train").rename(folder / "images")
    shutil.rmtree(folder / "val")
    (folder / "val.json").unlink()
    return folder


def _loaded(folder: Path, split: str) -> tuple[list[dict], dict[int, list[dict]]]:
    data = json.loads((folder / f"{split}.json").read_text())
    (folder / f"{split}.json").unlink()
    labels: dict[int, list[dict]] = {image["id"]: [] for image in data["images"]}
    for label in data["annotations"]:
        labels[label["image_id"]].append(label)
    return data["images"], labels


def yolo(folder: Path, *, polygons: bool = False, **changes: own_annotations.Change) -> Path:
    """data.yaml, images/<split>/*, labels/<split>/*.txt."""
    own_annotations.write(folder, **changes)
    for split in SPLITS:
        images, labels = _loaded(folder, split)
        (folder / "labels" / split).mkdir(parents=True)
        (folder / "images").mkdir(exist_ok=True)
        (folder / split).rename(folder / "images" / split)
        for image in images:
            lines = []
            for label in labels[image["id"]]:
                x, y, w, h = label["bbox"]
                numbers = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
                if polygons:
                    (polygon,) = label["segmentation"]
                    numbers = [value / (HEIGHT if k % 2 else WIDTH) for k, value in enumerate(polygon)]
                lines.append(" ".join([str(label["category_id"] - 1), *(f"{it:.9f}" for it in numbers)]))
            stem = Path(image["file_name"]).stem
            (folder / "labels" / split / f"{stem}.txt").write_text("\n".join(lines))
    names = "\n".join(f"  {number - 1}: {name}" for number, name in NAMES.items())
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}\n")
    return folder


def voc(folder: Path, *, first_pixel: int = 1, **changes: own_annotations.Change) -> Path:
    """Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt."""
    own_annotations.write(folder, **changes)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split in SPLITS:
        images, labels = _loaded(folder, split)
        for image in images:
            stem = Path(image["file_name"]).stem
            (folder / split / image["file_name"]).rename(folder / "JPEGImages" / image["file_name"])
            objects = "".join(_voc_object(label, first_pixel) for label in labels[image["id"]])
            (folder / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{image['file_name']}</filename>"
                f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
                f"{objects}</annotation>"
            )
        stems = [Path(image["file_name"]).stem for image in images]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        (folder / split).rmdir()
    return folder


def _voc_object(label: dict, first_pixel: int) -> str:
    x, y, w, h = label["bbox"]
    xmin, ymin = x + first_pixel, y + first_pixel
    difficult = int(bool(label.get("iscrowd")))
    return (
        f"<object><name>{NAMES[label['category_id']]}</name><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
    )
