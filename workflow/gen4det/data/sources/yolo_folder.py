"""Folders in the layout of YOLO: data.yaml, images, and a text file of boxes or polygons per image.

data.yaml: {path: ., train: images/train, val: images/val, names: [cup, fish]}
images/train/7.jpg  ->  labels/train/7.txt: "<class> <centre x> <centre y> <width> <height>", in shares of the
image, or "<class> <x> <y> <x> <y> <x> <y> ...", a polygon. No text file, or an empty one: no object.
Without data.yaml: classes.txt (or obj.names) beside the folders images and labels.
"""

import logging
import math
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.yaml_files import read_yaml
from gen4det.data.defects import Defects
from gen4det.data.images import ImageStore
from gen4det.data.sources.found import WHOLE, FoundSplit, files_below
from gen4det.data.suffixes import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

CLASS_FILES = ("classes.txt", "obj.names")


def yolo_description(root: Path) -> Path | None:
    """The file that describes a YOLO folder: a YAML file with `names`, else a list of classes."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            values = read_yaml(path)
        except InputError:
            continue
        if "names" in values and {"train", "val", "test"} & values.keys():
            return path
    lists = (root / name for name in CLASS_FILES)
    return next((path for path in lists if path.is_file() and (root / "labels").is_dir()), None)


def read_yolo(root: Path, defects: Defects) -> dict[str, FoundSplit]:
    """Read a folder; category ids are the classes' numbers plus 1.

    Raises:
        InputError: broken data.yaml, images or folders that are not there, or what `defects` refuses.
    """
    path = yolo_description(root)
    if path is None:
        raise InputError(f"{root}: no data.yaml with `names` and `train`, nor classes.txt beside labels")
    if path.name in CLASS_FILES:
        names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        places = {WHOLE: [root / "images" if (root / "images").is_dir() else root]}
    else:
        values = read_yaml(path)
        names = _names(values["names"], path)
        places = {
            split: [_place(root, values, entry, path, split) for entry in _listed(values[split])]
            for split in ("train", "val", "test")
            if values.get(split)
        }
        if places.get("train") and places.get("val") == places["train"]:
            log.warning("%s: val is the same folder as train; it is read as one split", path)
            places = {WHOLE: places["train"]}
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: names: two classes are called {twice!r}")
    places = _with_images(places, root)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {split: _split(root, split, found, categories, defects) for split, found in places.items()}


def _with_images(places: dict[str, list[Path]], root: Path) -> dict[str, list[Path]]:
    """Without splits whose folders are empty, such as a validation that is still to come.

    Raises:
        InputError: no split has an image.
    """
    found = {split: folders for split, folders in places.items() if _images(folders)}
    if not found:
        raise InputError(
            f"{root}: no images in {', '.join(str(it) for folders in places.values() for it in folders)}"
        )
    for split in sorted(places.keys() - found.keys()):
        log.warning("%s: %s has no images and is passed over", root, split)
    return found


def _names(value: object, path: Path) -> list[str]:
    if isinstance(value, dict) and sorted(value) == list(range(len(value))):
        value = [value[number] for number in range(len(value))]
    if not isinstance(value, list) or not value:
        raise InputError(f"{path}: names: expected a list of classes, or numbers from 0 on with their names")
    return [str(name) for name in value]


def _listed(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


def _place(root: Path, values: dict, entry: str, path: Path, split: str) -> Path:
    """A folder of images, or a text file that lists them. Some tools write ../ where they mean the folder."""
    for base in (root / str(values.get("path") or "."), root):
        for name in (entry, entry.removeprefix("../")):
            if (base / name).exists():
                return (base / name).resolve()
    raise InputError(f"{path}: {split}: no folder or list of images {entry!r} below {root}")


def _images(places: list[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += files_below(place, IMAGE_SUFFIXES)
        else:
            lines = (line.strip() for line in place.read_text().splitlines())
            found += [(place.parent / line).resolve() for line in lines if line]
    return found


def label_file(image: Path) -> Path:
    """Where the boxes of an image stand: in `labels` in place of the last `images` of its path."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _split(
    root: Path, split: str, places: list[Path], categories: list[dict], defects: Defects
) -> FoundSplit:
    paths = _images(places)
    folder = root.resolve()
    if any(not path.is_relative_to(folder) for path in paths):
        folder = Path(places[0].parent if places[0].is_file() else places[0])
        if any(not path.is_relative_to(folder) for path in paths):
            raise InputError(f"{root}: {split}: images in several places; expected them below one folder")
    store = ImageStore(folder)
    images, annotations, without = [], [], 0
    for path in progress(paths, f"reading labels of {split}", "image"):
        name = path.relative_to(folder).as_posix()
        try:
            width, height = store.size(name)
        except InputError as error:
            defects.add("image", str(path), str(error).removeprefix(f"{path}: "))
            continue
        image = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
        images.append(image)
        labels = label_file(path)
        if not labels.is_file():
            without += 1
            continue
        for number, line in enumerate(labels.read_text().splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{labels}: line {number}"
            label = _label(line, image, len(categories))
            if isinstance(label, str):
                defects.add("annotation", where, label, line=line[:200])
            else:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image["id"], "iscrowd": 0} | label
                )
    if without:
        log.info("%s: %s: %d of %d images have no text file: no object", root, split, without, len(paths))
    data = {"images": images, "annotations": annotations, "categories": [dict(c) for c in categories]}
    return FoundSplit(data, folder, f"{root} ({split})" if split != WHOLE else str(root))


def _label(line: str, image: dict, classes: int) -> dict | str:
    """Category, box and polygon of one line; a text says what is wrong with it."""
    words = line.split()
    try:
        kind, values = int(float(words[0])), [float(word) for word in words[1:]]
    except ValueError:
        return "expected numbers: class and box or polygon"
    if not 0 <= kind < classes or kind != float(words[0]):
        return f"class {words[0]}; expected 0 to {classes - 1}"
    if not all(map(math.isfinite, values)):
        return "numbers that are not finite"
    width, height = image["width"], image["height"]
    if len(values) == 4:
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return {"category_id": kind + 1, "bbox": [x - w / 2, y - h / 2, w, h]}
    if len(values) < 6 or len(values) % 2:
        return f"{len(values)} numbers after the class; expected 4 (a box), or pairs of a polygon, 3 at least"
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    polygon = [number for pair in zip(xs, ys, strict=True) for number in pair]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"category_id": kind + 1, "bbox": box, "segmentation": [polygon]}
