"""Register a user's own photographs as a data set: all is checked, only the annotations are copied."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from gen4det.core.errors import InputError
from gen4det.core.provenance import content_hash
from gen4det.data.annotations import (
    category_counts,
    frequency_groups,
    is_object,
    to_lvis,
)
from gen4det.data.contradictions import check_boxes, measure_regions, with_areas
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset, write_split
from gen4det.data.defects import HINT, Defects
from gen4det.data.images import ImageStore, image_name
from gen4det.data.pictures_seen import FOLDER, UNSEEN, own_files, seen_file, write_seen
from gen4det.data.records import normalised
from gen4det.data.source_settings import PhotographsDataset
from gen4det.data.sources.own import read_splits
from gen4det.data.spool import changed, without_masks
from gen4det.data.validation import check_images, validate_annotations

log = logging.getLogger(__name__)


def register_photographs(
    name: str,
    settings: PhotographsDataset,
    output: str | Path,
    *,
    mask_detectors: Sequence[str] = (),
    tokens: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, int]:
    """Check a user's data and write dataset.json, train.json and val.json.

    The annotations are copied with what the chosen evaluation needs filled in (`complete_splits`); the images
    stay where they are. All annotations are checked before the first image is opened, then every image is
    read and decoded once. Where bad ones are dropped, images are looked at first.

    Args:
        name: name of the data set.
        output: where dataset.json is written, the others beside it.
        mask_detectors: configs of detectors that will learn masks from these data.
        tokens: by split, or "folder", what told that files have changed; written down with what was seen.

    Returns:
        {"annotation": n, "image": m} left out, see `on_bad_annotation`.

    Raises:
        InputError: the first problem of the data, see `validate_annotations` and `data.sources`; or most
            boxes contradict their masks; or masks are missing that a detector needs; or training and
            validation categories differ; or the disk is full.
    """
    output = Path(output)
    defects = Defects(settings.on_bad_annotation)
    white = {"refuse": None, "full-range": 65535}.get(settings.sixteen_bit, settings.sixteen_bit)
    found = read_splits(settings, defects, white)
    stores = {split: ImageStore(it.images, white=white) for split, it in found.items()}
    loaded = {split: it.data for split, it in found.items()}
    for split, data in loaded.items():
        # A category without validation images has no result, which is a fact; without training images it
        # cannot be learnt, which is most likely a mistake.
        allow = split == "val" or settings.allow_empty_categories
        warnings = validate_annotations(
            data, source=found[split].source, allow_empty_categories=allow, hint=HINT
        )
        loaded[split], more = _put_right(data, found[split].source)
        for warning in (*warnings, *more):
            log.warning(warning)
    _same_categories(loaded, {split: it.source for split, it in found.items()})
    loaded = _without_unused_categories(loaded)
    completed = complete_splits(loaded["train"], loaded["val"], settings.format, found["train"].source)

    for split, data in zip(("train", "val"), completed, strict=True):
        _check_masks(data, found[split].source, mask_detectors)

    hashes = {}
    for split, it in found.items():
        if not defects.drops:
            on_bad = partial(_refuse_image, defects)
            check_images(loaded[split], it.source, stores[split], decode=True, on_bad=on_bad)
        hashes[split] = _image_hashes(loaded[split], stores[split])
    shared = set(hashes["train"].values()) & set(hashes["val"].values())
    if shared:
        log.warning("%d images of the validation split are also in the training split", len(shared))

    everything: dict[Path, str] = {}
    registered = {}
    for split, data in zip(("train", "val"), completed, strict=True):
        registered[split] = write_split(output.parent, split, data)
        files = map(stores[split].file_of, hashes[split])
        known = {stores[split].root / image: digest for image, digest in hashes[split].items()}
        write_seen(seen_file(output, split), stores[split].root, files, tokens.get(split, UNSEEN), known)
        everything |= known
    if settings.folder is not None:
        folder, token = Path(settings.folder), tokens.get(FOLDER, UNSEEN)
        write_seen(seen_file(output, FOLDER), folder, own_files(folder), token, everything)
    defects.write(output.parent)
    splits = {
        split: SplitDescriptor(
            **registered[split],
            images=str(it.images.resolve()),
            images_sha256=content_hash(hashes[split]),
            white=white,
        )
        for split, it in found.items()
    }
    categories = completed[0]["categories"]
    write_dataset(
        output, DatasetDescriptor(name=name, format=settings.format, categories=categories, **splits)
    )
    if left_out := defects.summary():
        log.warning("%s: %s", output, left_out)
    log.info("%s: %s", output, summary(*completed))
    return defects.counts()


def _refuse_image(defects: Defects, record: dict, problem: str) -> None:
    defects.refuse(problem)


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


def _put_right(data: dict, source: str) -> tuple[dict, list[str]]:
    """The checked annotations in one notation, their areas recomputed from the regions; and warnings.

    Raises:
        InputError: most boxes contradict their masks.
    """
    data = normalised(data)
    regions = measure_regions(data)
    warnings = check_boxes(data, regions, source)
    data, more = with_areas(data, regions, source)
    return data, warnings + more


def _check_masks(data: dict, source: str, mask_detectors: Sequence[str]) -> None:
    """Masks where a detector learns and is measured by masks; before anything is drawn or trained."""
    if not mask_detectors:
        return
    without = [a["id"] for a in data["annotations"] if not a.get("segmentation") and not a.get("ignore")]
    if without:
        total = len(data["annotations"])
        raise InputError(
            f"{source}: {len(without)} of {total} annotations have no mask (the first is annotation "
            f"{without[0]}), but masks are learnt by {', '.join(mask_detectors)}; give all of them "
            "masks, or use a detector of boxes, e.g. config/detectors/photographs_faster_rcnn.py"
        )


def _same_categories(loaded: dict[str, dict], files: dict[str, str]) -> None:
    named = {split: {c["id"]: c["name"] for c in data["categories"]} for split, data in loaded.items()}
    for identifier in sorted(named["train"].keys() | named["val"].keys()):
        train, val = named["train"].get(identifier), named["val"].get(identifier)
        if train is None or val is None:
            here, there = ("val", "train") if train is None else ("train", "val")
            raise InputError(
                f"{files[there]}: category {identifier} ({named[here][identifier]!r} of {files[here]}) is "
                "missing; expected the same categories in both files"
            )
        if train != val:
            raise InputError(
                f"{files['val']}: category {identifier} is {val!r}, but {train!r} in {files['train']}; "
                "expected the same categories in both files"
            )


def _without_unused_categories(loaded: dict[str, dict]) -> dict[str, dict]:
    """Leave out categories without any object: engines would draw them, and nothing measures them."""
    used = {a["category_id"] for data in loaded.values() for a in data["annotations"] if is_object(a)}
    unused = {c["id"]: c["name"] for c in loaded["train"]["categories"] if c["id"] not in used}
    if not unused:
        return loaded
    log.warning(
        "%d categories have an object in neither file and are left out: %s",
        len(unused), ", ".join(map(repr, unused.values())),
    )  # fmt: skip
    return {split: _without_categories(data, unused.keys()) for split, data in loaded.items()}


def _without_categories(data: dict, unused: Iterable[int]) -> dict:
    unused = set(unused)

    def trimmed(image: dict) -> dict:
        keys = {"neg_category_ids", "not_exhaustive_category_ids"} & image.keys()
        return image | {key: [c for c in image[key] if c not in unused] for key in keys}

    return data | {
        "images": [trimmed(image) for image in data["images"]],
        "annotations": [a for a in data["annotations"] if a["category_id"] not in unused],
        "categories": [c for c in data["categories"] if c["id"] not in unused],
    }


def _image_hashes(data: dict, images: ImageStore) -> dict[str, str]:
    """SHA-256 of every image by name. Follows the check, so that the files are still in memory."""
    names = sorted(image_name(image) for image in data["images"])
    return {name: hashlib.sha256(images.read(name)).hexdigest() for name in names}


def _with_areas(data: dict) -> dict:
    """Fill in missing areas: pixels of the mask, or of the box where there is no mask."""
    if all("area" in annotation for annotation in without_masks(data["annotations"])):
        return data
    pairs = zip(data["annotations"], measure_regions(data).areas.tolist(), strict=True)
    areas = {annotation["id"]: area for annotation, area in pairs if "area" not in annotation}

    def with_area(annotation: dict) -> dict:
        return annotation if "area" in annotation else {"area": areas[annotation["id"]]} | annotation

    return data | {"annotations": changed(data["annotations"], with_area)}


def _with_crowds(data: dict) -> dict:
    return data | {"annotations": changed(data["annotations"], lambda it: {"iscrowd": 0} | it)}


def _is_federated(data: dict) -> bool:
    """Whether some image leaves open if it shows a category."""
    categories = {category["id"] for category in data["categories"]}
    shown: dict[int, set[int]] = {image["id"]: set() for image in data["images"]}
    for annotation in without_masks(data["annotations"]):
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
