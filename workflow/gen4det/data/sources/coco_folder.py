"""Folders with annotation files in the layout of COCO or LVIS, wherever in it they and the images lie.

annotations/instances_train.json  train/*     or  train/_annotations.coco.json, train/*
result.json  images/*                         or  labels.json  data/*
"""

from collections.abc import Iterator
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.data.images import ImageStore, image_name
from gen4det.data.sources.found import WHOLE, FoundSplit, split_of

LOOKED_AT = 20
"""Images that are looked for to find their folder."""


def annotation_files(root: Path) -> list[Path]:
    """JSON files with COCO's three lists in a folder and two levels below; captions and the like are none."""
    found = []
    for pattern in ("*.json", "*/*.json", "*/*/*.json"):
        for path in sorted(root.glob(pattern)):
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                continue
            try:
                data = read_json(path, "annotations")
            except InputError:
                continue
            if isinstance(data, dict) and all(
                isinstance(data.get(key), list) for key in ("images", "annotations", "categories")
            ):
                found.append(path)
    return found


def read_coco(root: Path, files: list[Path]) -> dict[str, FoundSplit]:
    """Read the files, one for each split.

    Raises:
        InputError: two files of one split, or the images are nowhere.
    """
    by_split: dict[str, list[Path]] = {}
    for path in files:
        split = split_of(path.name)
        if split == WHOLE:
            split = split_of(path.parent.relative_to(root).as_posix())
        by_split.setdefault(split, []).append(path)
    found = {}
    for split, paths in by_split.items():
        instances = [path for path in paths if path.name.startswith("instances")]
        paths = instances if len(instances) == 1 else paths
        if len(paths) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in paths)
            raise InputError(f"{root}: {len(paths)} annotation files of {split}: {names}; name those to read "
                             "as train.annotations and val.annotations, with their images")  # fmt: skip
        data = read_json(paths[0], "annotations in the layout of COCO or LVIS")
        images = image_folder(root, paths[0], data, split)
        found[split] = FoundSplit(_with_sizes(data, images), images, str(paths[0]))
    return found


def _with_sizes(data: dict, images: Path) -> dict:
    """Sizes that a file leaves open, as some tools do of images without objects, from the images themselves.

    Raises:
        InputError: such an image is missing or no image.
    """
    unsized = [
        isinstance(record, dict) and (record.get("width") is None or record.get("height") is None)
        for record in data["images"]
    ]
    if not any(unsized):
        return data
    store, records = ImageStore(images), []
    for record, is_open in zip(data["images"], unsized, strict=True):
        if is_open:
            width, height = store.size(image_name(record))
            record = record | {"width": width, "height": height}
        records.append(record)
    return data | {"images": records}


def image_folder(root: Path, path: Path, data: dict, split: str) -> Path:
    """The folder or zip below which the file names of an annotation file are found.

    Raises:
        InputError: none of the first images is anywhere.
    """
    if not data["images"]:
        return root  # the check of the records says so
    names = []
    for record in data["images"][:LOOKED_AT]:
        if not isinstance(record, dict):
            return root
        try:
            names.append(image_name(record))
        except InputError:
            return root
    places = list(_places(root, path))
    scores = []
    for place in places:
        try:
            store = ImageStore(place)
            here = sum(store.exists(name) for name in names)
        except InputError:
            here = 0
        scores.append((here, split_of(place.relative_to(root).as_posix()) == split))
    best = max(range(len(places)), key=lambda position: scores[position])
    if not scores[best][0]:
        raise InputError(f"{path}: image {names[0]!r} is nowhere below {root}")
    return places[best]


def _places(root: Path, path: Path) -> Iterator[Path]:
    """Folders and zips that may hold the images, the likeliest first."""
    yield path.parent
    if path.parent != root:
        yield root
    for pattern in ("*", "*/*", "*/*/*"):
        for place in sorted(root.glob(pattern)):
            if not place.name.startswith(".") and (place.is_dir() or place.suffix == ".zip"):
                yield place
