"""A user's own photographs become a data set: all is checked, only the annotations are copied."""

import hashlib
import logging
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import content_hash
from gen4det.data.annotations import (
    category_counts,
    frequency_groups,
    load_annotations,
    to_lvis,
    write_annotations,
)
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset
from gen4det.data.images import ImageStore, image_name
from gen4det.data.masks import area_of_rle, segmentation_to_rle
from gen4det.data.source_settings import PhotographsDataset
from gen4det.data.validation import check_images, validate_annotations

log = logging.getLogger(__name__)


def register_photographs(name: str, settings: PhotographsDataset, output: str | Path) -> None:
    """Check a user's data and write dataset.json, train.json and val.json.

    The annotation files are copied with what the chosen evaluation needs filled in (`complete_splits`); the
    images stay where they are. All annotations are checked before the first image is opened, then every
    image is read and decoded once.

    Args:
        name: name of the data set.
        output: where dataset.json is written, the other two beside it.

    Raises:
        InputError: the first problem of the data, see `validate_annotations`; or training and validation
            categories differ; or the disk is full.
    """
    output = Path(output)
    sources = {"train": settings.train, "val": settings.val}
    stores = {split: ImageStore(source.images) for split, source in sources.items()}
    loaded = {split: load_annotations(source.annotations) for split, source in sources.items()}
    for split, data in loaded.items():
        # A category without validation images has no result, which is a fact; without training images it
        # cannot be learnt, which is most likely a mistake.
        allow = split == "val" or settings.allow_empty_categories
        for warning in validate_annotations(
            data, source=sources[split].annotations, allow_empty_categories=allow
        ):
            log.warning(warning)
    _same_categories(loaded, settings)
    completed = complete_splits(
        loaded["train"], loaded["val"], settings.format, str(settings.train.annotations)
    )

    hashes = {}
    for split, source in sources.items():
        check_images(loaded[split], source.annotations, stores[split], decode=True)
        hashes[split] = _image_hashes(loaded[split], stores[split])
    shared = set(hashes["train"].values()) & set(hashes["val"].values())
    if shared:
        log.warning("%d images of the validation split are also in the training split", len(shared))

    for split, data in zip(("train", "val"), completed, strict=True):
        write_annotations(output.parent / f"{split}.json", data)
    splits = {
        split: SplitDescriptor(
            annotations=f"{split}.json",
            images=str(Path(source.images).resolve()),
            images_sha256=content_hash(hashes[split]),
        )
        for split, source in sources.items()
    }
    write_dataset(output, DatasetDescriptor(name=name, format=settings.format, **splits))
    log.info("%s: %s", output, summary(*completed))


def complete_splits(train: dict, val: dict, format: str, source: str) -> tuple[dict, dict]:
    """Fill in what the evaluation protocol needs; logs a warning where the result has to be read with care.

    Returns:
        (train, val) as new dictionaries: every annotation has `area`; "lvis": see `to_lvis`; "coco": every
        annotation has `iscrowd`.
    """
    train, val = _with_areas(train), _with_areas(val)
    if format == "lvis":
        _warn_of_other_groups(train, source)
        return to_lvis(train), to_lvis(val, training=train)
    if _is_federated(train) or _is_federated(val):
        log.warning(
            "%s: annotated federatedly, as LVIS is; COCO's evaluation will count objects that were never "
            "annotated as false positives",
            source,
        )
    return _with_crowds(train), _with_crowds(val)


def _same_categories(loaded: dict[str, dict], settings: PhotographsDataset) -> None:
    named = {split: {c["id"]: c["name"] for c in data["categories"]} for split, data in loaded.items()}
    for identifier in sorted(named["train"].keys() | named["val"].keys()):
        train, val = named["train"].get(identifier), named["val"].get(identifier)
        if train != val:
            raise InputError(
                f"{settings.val.annotations}: category {identifier} is {val!r}, but {train!r} in "
                f"{settings.train.annotations}"
            )


def _image_hashes(data: dict, images: ImageStore) -> dict[str, str]:
    """SHA-256 of every image by name. Follows the check, so that the files are still in memory."""
    names = sorted(image_name(image) for image in data["images"])
    return {name: hashlib.sha256(images.read(name)).hexdigest() for name in names}


def _with_areas(data: dict) -> dict:
    """Fill in missing areas: pixels of the mask, or of the box where there is no mask."""
    if all("area" in annotation for annotation in data["annotations"]):
        return data
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}

    def area(annotation: dict) -> float:
        if annotation.get("segmentation"):
            size = sizes[annotation["image_id"]]
            return float(area_of_rle(segmentation_to_rle(annotation["segmentation"], *size)))
        return float(annotation["bbox"][2] * annotation["bbox"][3])

    return data | {"annotations": [a if "area" in a else a | {"area": area(a)} for a in data["annotations"]]}


def _with_crowds(data: dict) -> dict:
    return data | {"annotations": [{"iscrowd": 0} | annotation for annotation in data["annotations"]]}


def _is_federated(data: dict) -> bool:
    """Whether some image leaves open if it shows a category."""
    categories = {category["id"] for category in data["categories"]}
    shown: dict[int, set[int]] = {image["id"]: set() for image in data["images"]}
    for annotation in data["annotations"]:
        shown[annotation["image_id"]].add(annotation["category_id"])
    return any(
        image.get("not_exhaustive_category_ids")
        or ("neg_category_ids" in image and categories - shown[image["id"]] - set(image["neg_category_ids"]))
        for image in data["images"]
    )


def _warn_of_other_groups(train: dict, source: str) -> None:
    stated = frequency_groups(train)
    unstated = train | {"categories": [{"id": c["id"]} for c in train["categories"]]}
    counted = frequency_groups(unstated)
    different = sum(stated[identifier] != counted[identifier] for identifier in stated)
    if different:
        log.warning(
            "%s: the field frequency of %d of %d categories differs from the groups of LVIS (rare: 1-10 "
            "training images, common: 11-100, frequent: more); the field is used",
            source, different, len(stated),
        )  # fmt: skip


def summary(train: dict, val: dict) -> str:
    """One line: images and instances of both splits, categories by group."""
    counts = []
    for data in (train, val):
        objects = sum(instances for _, instances in category_counts(data).values())
        counts.append(f"{len(data['images'])} images with {objects} objects")
    groups = list(frequency_groups(train).values())
    by_group = ", ".join(
        f"{groups.count(group)} {word}" for group, word in (("r", "rare"), ("c", "common"), ("f", "frequent"))
    )
    return f"training {counts[0]}, validation {counts[1]}, {len(groups)} categories ({by_group})"
