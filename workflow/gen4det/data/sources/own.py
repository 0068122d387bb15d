"""The user's own data as a training and a validation split, without what is bad where that is dropped."""

import logging
from functools import partial
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.data.annotations import is_object, load_annotations
from gen4det.data.defects import Defects
from gen4det.data.images import ImageStore, image_name
from gen4det.data.records import bad_annotations, check_records
from gen4det.data.source_settings import PhotographsDataset, PhotographsSplit
from gen4det.data.sources.folder import read_folder
from gen4det.data.sources.found import WHOLE, FoundSplit
from gen4det.data.sources.parting import part
from gen4det.data.validation import check_images, geometry_problems

log = logging.getLogger(__name__)


def read_splits(
    settings: PhotographsDataset, defects: Defects, white: int | None = None, *, look: bool = True
) -> dict[str, FoundSplit]:
    """Read the data, whatever their layout.

    Args:
        white: see `ImageStore`.
        look: where bad ones are dropped, decode every image; a count of the data can do without.

    Returns:
        {"train", "val"}. Only the records of undivided data are checked, and what is dropped is gone.

    Raises:
        InputError: whatever a reader refuses, or too few images to part.
    """
    if settings.folder is not None:
        found = read_folder(
            settings.folder, defects, layout=settings.layout, first_pixel=settings.first_pixel
        )
    else:
        for split in filter(None, (settings.train, settings.val)):
            ImageStore(split.images)  # raises where there is none
        found = {"train": _read_file(settings.train)}
        if settings.val is not None:
            found["val"] = _read_file(settings.val)
        else:
            found = {WHOLE: found["train"]}
    if defects.drops:
        for it in found.values():
            _drop(it, defects, white, look)
    if WHOLE in found:
        found = _parted(found[WHOLE], settings)
    for split, it in found.items():
        it.data = _without_difficult(it.data, as_crowd=split == "val")
    return found


def _read_file(split: PhotographsSplit) -> FoundSplit:
    ImageStore(split.images)  # raises where there is none
    return FoundSplit(load_annotations(split.annotations), Path(split.images), split.annotations)


def _parted(whole: FoundSplit, settings: PhotographsDataset) -> dict[str, FoundSplit]:
    check_records(whole.data, whole.source)
    train, val = part(whole.data, settings.validation_share, settings.split_seed)
    shown = [{a["category_id"] for a in data["annotations"] if is_object(a)} for data in (train, val)]
    if not (train["images"] and val["annotations"]):
        raise InputError(
            f"{whole.source}: {len(whole.data['images'])} images are too few to set a validation split "
            "apart; give more, or a larger validation_share"
        )
    log.warning(
        "%s: one split only; by split_seed %d and validation_share %g, category by category: %d images for "
        "training, %d for validation; %d of %d categories have objects in both",
        whole.source, settings.split_seed, settings.validation_share, len(train["images"]),
        len(val["images"]), len(shown[0] & shown[1]), len(shown[0] | shown[1]),
    )  # fmt: skip
    return {
        "train": FoundSplit(train, whole.images, whole.source),
        "val": FoundSplit(val, whole.images, whole.source),
    }


def _drop(split: FoundSplit, defects: Defects, white: int | None, look: bool) -> None:
    """Leave out bad records of annotations, bad images with their annotations, and bad geometry."""
    _leave_out(split, bad_annotations(split.data), defects)
    check_records(split.data, split.source)
    if look:
        bad: set[int] = set()
        store = ImageStore(split.images, white=white)
        note = partial(_note_image, split, defects, bad)
        check_images(split.data, split.source, store, decode=True, on_bad=note)
        split.data = split.data | {
            "images": [image for image in split.data["images"] if image["id"] not in bad],
            "annotations": [it for it in split.data["annotations"] if it["image_id"] not in bad],
        }
    _leave_out(split, geometry_problems(split.data), defects)


def _note_image(split: FoundSplit, defects: Defects, bad: set[int], record: dict, problem: str) -> None:
    bad.add(record["id"])
    lost = sum(it["image_id"] == record["id"] for it in split.data["annotations"])
    path = str(split.images / image_name(record))
    defects.add("image", path, problem.removeprefix(f"{path}: "), annotations_with_it=lost)


def _leave_out(split: FoundSplit, problems: list[tuple[int, str]], defects: Defects) -> None:
    annotations = split.data["annotations"]
    files = {image["id"]: image.get("file_name") for image in split.data["images"] if isinstance(image, dict)}
    for position, reason in problems:
        it = annotations[position]
        name = it.get("id", position) if isinstance(it, dict) else position
        image = files.get(it.get("image_id")) if isinstance(it, dict) else None
        defects.add("annotation", f"{split.source}: annotation {name}", reason, image=image, annotation=it)
    bad = {position for position, _ in problems}
    kept = [it for position, it in enumerate(annotations) if position not in bad]
    split.data = split.data | {"annotations": kept}


def _without_difficult(data: dict, *, as_crowd: bool) -> dict:
    """VOC's flag: for evaluation such objects are ignored, as crowds are; in training they are objects."""
    if not any("difficult" in it for it in data["annotations"]):
        return data
    annotations = []
    for it in data["annotations"]:
        plain = {key: value for key, value in it.items() if key != "difficult"}
        annotations.append(plain | {"iscrowd": 1} if as_crowd and it.get("difficult") else plain)
    return data | {"annotations": annotations}
