"""Folders in the layout of PASCAL VOC: one XML file per image, with boxes.

Annotations/*.xml  JPEGImages/*  [ImageSets/Main/{train,val,trainval,test}.txt]
or XML files beside the images, as several annotation tools export them: train/*.jpg train/*.xml valid/...
"""

import logging
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.data.defects import Defects
from gen4det.data.images import ImageStore
from gen4det.data.sources.found import WHOLE, FoundSplit, files_below, images_by_stem, split_of

log = logging.getLogger(__name__)

FirstPixel = Literal["auto", 0, 1]
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Page:
    """One XML file."""

    path: Path
    image: Path
    width: int
    height: int
    objects: list[dict] = field(default_factory=list)
    """{"name", "corners": four numbers, "difficult", "number": place in the file}."""


def read_voc(root: Path, defects: Defects, first_pixel: FirstPixel) -> dict[str, FoundSplit]:
    """Read a folder; category ids count from 1 in the order of the names.

    Args:
        first_pixel: number of the first pixel. VOC counts from 1 and includes the last one: boxes become
            [xmin - 1, ymin - 1, xmax - xmin + 1, ...]. Other tools count edges from 0: [xmin, ymin,
            xmax - xmin, ...]. "auto": 0 if any corner of the folder is 0, else 1.

    Raises:
        InputError: no XML file of VOC, one that an image set names is missing, or what `defects` refuses.
    """
    lists = _image_sets(root)
    images = _photographs(root)
    pages: dict[str, list[_Page]] = {}
    for path in progress(list(files_below(root, frozenset({".xml"}))), "reading XML files", "file"):
        split = lists.get(path.stem) if lists else split_of(path.parent.relative_to(root).as_posix())
        if split is None:
            continue  # in no image set that is read
        if page := _page(path, images, defects):
            pages.setdefault(split, []).append(page)
    if not pages:
        raise InputError(f"{root}: no annotation of PASCAL VOC: no XML file with <annotation>")
    read = {page.path.stem for split in pages.values() for page in split}
    bad = {Path(entry["where"].partition(": ")[0]).stem for entry in defects.found}
    if missing := sorted(lists.keys() - read - bad):
        raise InputError(f"{root}: ImageSets names {missing[0]!r}, but there is no {missing[0]}.xml")
    origin = _origin(pages, first_pixel, root)
    names = sorted({it["name"] for split in pages.values() for page in split for it in page.objects})
    unlabelled = len({path for paths in images.values() for path in paths}) - sum(map(len, pages.values()))
    if unlabelled > 0 and not lists:
        log.warning("%s: %d images have no XML file and are left out", root, unlabelled)
    return {split: _split(root, pages[split], names, origin, defects) for split in pages}


def _photographs(root: Path) -> dict[str, list[Path]]:
    """Images by stem; SegmentationClass and SegmentationObject hold masks under the same names."""
    masks = ("SegmentationClass", "SegmentationObject")
    found = {
        stem: [path for path in paths if not path.parent.name.startswith(masks)]
        for stem, paths in images_by_stem(root).items()
    }
    return {stem: paths for stem, paths in found.items() if paths}


def _image_sets(root: Path) -> dict[str, str]:
    """Split of each stem by ImageSets/Main, empty without such lists. trainval counts as undivided."""
    folders = sorted(path for path in root.rglob("ImageSets/Main") if path.is_dir())
    found: dict[str, str] = {}
    for folder in folders:
        there = {path.stem: path for path in folder.glob("*.txt")}
        for name, split in (("trainval", WHOLE), ("train", "train"), ("val", "val"), ("test", "test")):
            if name not in there or (name == "trainval" and {"train", "val"} <= there.keys()):
                continue
            for line in there[name].read_text().splitlines():
                if line.strip():
                    found[line.split()[0]] = split
    if {"train", "val"} <= set(found.values()):
        found = {stem: split for stem, split in found.items() if split != WHOLE}
    return found


def _page(path: Path, images: dict[str, list[Path]], defects: Defects) -> _Page | None:
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        defects.add("image", str(path), f"not XML: {error}")
        return None
    if tree.tag != "annotation":
        return None
    image = _image_of(path, tree.findtext("filename") or "", images)
    if image is None:
        defects.add("image", str(path), f"no image called {path.stem!r} or {tree.findtext('filename')!r}")
        return None
    try:
        width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
        if not (width and height):
            width, height = ImageStore(image.parent).size(image.name)
    except (ValueError, InputError) as error:
        defects.add("image", str(path), str(error))
        return None
    page = _Page(path, image, width, height)
    for number, element in enumerate(tree.findall("object"), start=1):
        name = (element.findtext("name") or "").strip()
        given = {side: element.findtext(f"bndbox/{side}") for side in _SIDES}
        try:
            corners = [float(given[side]) for side in _SIDES]
            difficult = int(float(element.findtext("difficult") or 0))
        except (TypeError, ValueError):
            corners, difficult = None, 0
        if not name or corners is None:
            what = "no name" if not name else f"bndbox {given}: expected four numbers"
            defects.add("annotation", f"{path}: object {number}", what)
            continue
        page.objects.append({"name": name, "corners": corners, "difficult": difficult, "number": number})
    return page


def _image_of(path: Path, named: str, images: dict[str, list[Path]]) -> Path | None:
    """The image of an XML file: the one it is called after, else the one it names; the nearest of several."""
    for stem in (path.stem, Path(named.replace("\\", "/")).stem):
        if candidates := images.get(stem):
            parts = path.parts
            return max(candidates, key=lambda it: sum(a == b for a, b in zip(it.parts, parts, strict=False)))
    return None


def _origin(pages: dict[str, list[_Page]], first_pixel: FirstPixel, root: Path) -> int:
    if first_pixel != "auto":
        return first_pixel
    lowest = min((min(it["corners"]) for split in pages.values() for page in split for it in page.objects),
                 default=1)  # fmt: skip
    origin = 1 if lowest >= 1 else 0
    log.info(
        "%s: pixels are counted from %d, as the smallest coordinate is %g (the setting first_pixel)",
        root, origin, lowest,
    )  # fmt: skip
    return origin


def _split(root: Path, pages: list[_Page], names: list[str], origin: int, defects: Defects) -> FoundSplit:
    images, annotations = [], []
    identifiers = {name: number for number, name in enumerate(names, start=1)}
    for page in pages:
        image = {
            "id": len(images) + 1,
            "file_name": page.image.relative_to(root).as_posix(),
            "width": page.width,
            "height": page.height,
        }
        images.append(image)
        for it in page.objects:
            left, top, right, bottom = it["corners"]
            box = [left - origin, top - origin, right - left + origin, bottom - top + origin]
            label = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": identifiers[it["name"]],
                "bbox": box,
                "iscrowd": 0,
            }
            if it["difficult"]:
                label["difficult"] = 1
            annotations.append(label)
    categories = [{"id": identifier, "name": name} for name, identifier in identifiers.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    return FoundSplit(data, root, str(root))
