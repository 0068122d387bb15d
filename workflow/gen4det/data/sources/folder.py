"""Which layout a folder has, and its splits: training and validation."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gen4det.core.errors import InputError
from gen4det.data.defects import Defects
from gen4det.data.sources.coco_folder import annotation_files, read_coco
from gen4det.data.sources.found import WHOLE, FoundSplit, files_below, images_by_stem
from gen4det.data.sources.voc_folder import FirstPixel, read_voc
from gen4det.data.sources.yolo_folder import read_yolo, yolo_description

log = logging.getLogger(__name__)

Layout = Literal["auto", "coco", "voc", "yolo"]
NAMES = {"coco": "COCO or LVIS (JSON)", "voc": "PASCAL VOC (XML)", "yolo": "YOLO (data.yaml)"}


def read_folder(
    root: str | Path, defects: Defects, *, layout: Layout = "auto", first_pixel: FirstPixel = "auto"
) -> dict[str, FoundSplit]:
    """Read a folder of annotations and images.

    Args:
        layout: "auto" recognises it.
        first_pixel: see `read_voc`.

    Returns:
        {"train", "val"}, or {"all"} where the folder is not divided. A test split takes the place of a
        missing validation split; beside one it is not read.

    Raises:
        InputError: no such folder; no layout or several are recognised; or a reader refuses it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of annotations and images")
    files = annotation_files(root) if layout in ("auto", "coco") else []
    if layout == "auto":
        layout = _recognised(root, files)
        log.info("%s: the layout is that of %s", root, NAMES[layout])
    if layout == "coco" and not files:
        raise InputError(f"{root}: no annotation file in the layout of COCO or LVIS")
    readers: dict[str, Callable[[], dict[str, FoundSplit]]] = {
        "coco": lambda: read_coco(root, files),
        "voc": lambda: read_voc(root, defects, first_pixel),
        "yolo": lambda: read_yolo(root, defects),
    }
    return _training_and_validation(readers[layout](), root)


def _recognised(root: Path, files: list[Path]) -> str:
    found = ["coco"] if files else []
    found += ["voc"] if _has_xml_of_voc(root) else []
    found += ["yolo"] if yolo_description(root) else []
    if len(found) > 1:
        both = " and ".join(NAMES[name] for name in found)
        raise InputError(
            f"{root}: annotations in the layouts of {both}; set layout to one: {', '.join(found)}"
        )
    if found:
        return found[0]
    if images_by_stem(root):
        raise InputError(
            f"{root}: images, but no annotation in the layout of COCO, LVIS, PASCAL VOC or YOLO; without "
            "annotations give the names of what to draw: source: names"
        )
    raise InputError(f"{root}: neither annotations nor images")


def _has_xml_of_voc(root: Path) -> bool:
    for path in files_below(root, frozenset({".xml"})):
        with open(path, "rb") as stream:
            if b"<annotation" in stream.read(2000):
                return True
    return False


def _training_and_validation(found: dict[str, FoundSplit], root: Path) -> dict[str, FoundSplit]:
    if "val" not in found and "test" in found and "train" in found:
        log.warning("%s: no validation split; the test split takes its place", root)
        found = {"train": found["train"], "val": found["test"]}
    if {"train", "val"} <= found.keys():
        if extra := sorted(found.keys() - {"train", "val"}):
            log.info("%s: besides training and validation not read: %s", root, ", ".join(extra))
        return {split: found[split] for split in ("train", "val")}
    one = next(found[split] for split in ("train", WHOLE, "val", "test") if split in found)
    if len(found) > 1:
        raise InputError(f"{root}: splits {', '.join(sorted(found))}; expected train and val, or one alone")
    return {WHOLE: one}
