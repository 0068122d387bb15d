"""Annotation files: the dictionaries of COCO and LVIS v1 are the records; there is no private format."""

import json
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import atomic_write
from gen4det.data.spool import Spooled, kept, without_masks

RARE_UP_TO = 10
COMMON_UP_TO = 100
"""LVIS v1: rare categories have 1 to 10 training images, common ones 11 to 100, frequent ones more."""


# --- files --------------------------------------------------------------------------------------


def load_annotations(path: str | Path) -> dict:
    """Read a COCO or LVIS file.

    Returns:
        The dictionary, with at least the lists "images", "annotations" and "categories".

    Raises:
        InputError: missing file, not JSON, or not the layout of COCO and LVIS.
    """
    data = read_json(path, "annotations in the layout of COCO or LVIS")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InputError(f"{path}: no list of {key}; expected the layout of COCO or LVIS")
    return data


def write_annotations(path: str | Path, data: dict) -> None:
    """Write atomically, record by record; sorted keys and no blanks, so that equal contents give equal bytes.

    Raises:
        InputError: the disk is full; nothing is left behind.
    """
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for number, key in enumerate(sorted(data)):
            file.write(f"{',' if number else '{'}{encode(key)}:")
            value = data[key]
            if not isinstance(value, list | Spooled):
                file.write(encode(value))
                continue
            file.write("[")
            for place, record in enumerate(value):
                file.write("," * bool(place) + encode(record))
            file.write("]")
        file.write("}\n" if data else "{}\n")


def index_annotations(data: dict) -> dict[int, list[dict]]:
    """Annotations by image id, in file order; images without objects have an empty list."""
    index = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        index[annotation["image_id"]].append(annotation)
    return index


# --- objects, counts and LVIS's groups ----------------------------------------------------------


def is_object(annotation: dict) -> bool:
    """Whether a region is one object: neither a crowd nor marked to be ignored."""
    return not (annotation.get("iscrowd") or annotation.get("ignore"))


def category_counts(data: dict) -> dict[int, tuple[int, int]]:
    """{category id: (images with it, instances)} counted from the annotations; crowds are no objects."""
    labels = without_masks(data["annotations"])
    objects = ((a["category_id"], a["image_id"]) for a in labels if is_object(a))
    pairs = np.fromiter(objects, dtype=np.dtype((np.int64, 2)))
    categories = pairs[:, 0]
    instances = dict(zip(*(part.tolist() for part in np.unique(categories, return_counts=True)), strict=True))
    pairs = np.unique(pairs, axis=0)
    holders = dict(zip(*(part.tolist() for part in np.unique(pairs[:, 0], return_counts=True)), strict=True))
    return {c["id"]: (holders.get(c["id"], 0), instances.get(c["id"], 0)) for c in data["categories"]}


def frequency_groups(data: dict) -> dict[int, str]:
    """{category id: "r" | "c" | "f"}.

    From the field `frequency` where every category has it (LVIS: it then describes the training split, in
    the validation file, too), else from the image counts of this very file, which must then be the training
    split. A category without images counts as rare.
    """
    groups = {category["id"]: category.get("frequency") for category in data["categories"]}
    if all(group in ("r", "c", "f") for group in groups.values()):
        return groups
    return counted_groups(data)


def counted_groups(data: dict) -> dict[int, str]:
    """{category id: "r" | "c" | "f"} from the image counts of this very file, a training split."""
    return {category: frequency_group(images) for category, (images, _) in category_counts(data).items()}


def frequency_group(images: int) -> str:
    """LVIS's group of a category that so many training images show: "r", "c" or "f"."""
    if images <= RARE_UP_TO:
        return "r"
    return "c" if images <= COMMON_UP_TO else "f"


def to_lvis(data: dict, training: dict | None = None) -> dict:
    """Fill in what LVIS needs and COCO lacks; what is there already stays.

    - `frequency`, `image_count`, `instance_count` of categories: from the training split (LVIS, sec. 3). The
      groups are all taken from the file or all counted, never mixed.
    - `neg_category_ids` of images: every category that has no object in the image, and
      `not_exhaustive_category_ids`: COCO-style files claim to be annotated exhaustively, with one exception:
      a crowd region says that there are more objects of its category than were outlined. Its category is
      not exhaustive in that image, and the region itself is left out, because LVIS has no crowds.

    Args:
        data: a dictionary that passed `validate_annotations`.
        training: the training split's dictionary, where `data` is another split.

    Returns:
        A new dictionary; records are copied where they change.
    """
    reference = data if training is None else training
    counts, groups = category_counts(reference), frequency_groups(reference)
    categories = []
    for category in data["categories"]:
        images, instances = counts.get(category["id"], (0, 0))
        filled = {"image_count": images, "instance_count": instances}
        categories.append(filled | category | {"frequency": groups.get(category["id"], "r")})

    known = [category["id"] for category in data["categories"]]
    shown, crowded = ({image["id"]: set() for image in data["images"]} for _ in range(2))
    for a in without_masks(data["annotations"]):
        shown[a["image_id"]].add(a["category_id"])
        if a.get("iscrowd"):
            crowded[a["image_id"]].add(a["category_id"])
    images = []
    for image in map(dict, data["images"]):
        if "not_exhaustive_category_ids" not in image:
            image["not_exhaustive_category_ids"] = sorted(crowded[image["id"]])
        if "neg_category_ids" not in image:
            present = shown[image["id"]]
            image["neg_category_ids"] = [category for category in known if category not in present]
        images.append(image)
    annotations = kept(data["annotations"], lambda a: not a.get("iscrowd"))
    return data | {"images": images, "annotations": annotations, "categories": categories}
