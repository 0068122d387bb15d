"""PASCAL VOC's XML files as a COCO dictionary."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.progress import progress

CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC 2007 and 2012; category ids count from 1 in this order."""


def voc_annotations(root: Path, parts: list[tuple[str, str]], *, difficult_as_crowd: bool) -> dict:
    """Boxes of VOC in the layout of COCO.

    VOC counts pixels from 1 and includes the last one; boxes become [xmin - 1, ymin - 1, width, height].

    Args:
        root: folder below which the parts lie; file names are relative to it.
        parts: (folder, image set), e.g. ("2007-trainval/VOC2007", "trainval"); lists of another task than
            detection with its folder, e.g. "Segmentation/train".
        difficult_as_crowd: for evaluation: VOC ignores objects marked as difficult, as COCO ignores crowds.
            Otherwise they are objects like all others (47,223 in the 16,551 images of 07+12 trainval).

    Raises:
        InputError: a file is missing or not VOC's XML.
    """
    images, annotations = [], []
    for folder, image_set in parts:
        for name in progress(_image_set(root / folder, image_set), f"{folder} {image_set}", "image"):
            path = root / folder / "Annotations" / f"{name}.xml"
            try:
                tree = ElementTree.parse(path).getroot()
                image = {
                    "id": len(images) + 1,
                    "file_name": f"{folder}/JPEGImages/{name}.jpg",
                    "width": int(tree.findtext("size/width")),
                    "height": int(tree.findtext("size/height")),
                }
                images.append(image)
                for element in tree.findall("object"):
                    annotations.append(
                        _annotation(element, image["id"], len(annotations) + 1, difficult_as_crowd)
                    )
            except FileNotFoundError:
                raise InputError(f"{path}: no such file") from None
            except (ElementTree.ParseError, TypeError, ValueError) as error:
                raise InputError(f"{path}: not an annotation of VOC: {error}") from error
    categories = [{"id": index, "name": name} for index, name in enumerate(CATEGORIES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _image_set(folder: Path, image_set: str) -> list[str]:
    place = image_set if "/" in image_set else f"Main/{image_set}"
    path = folder / "ImageSets" / f"{place}.txt"
    try:
        return path.read_text().split()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _annotation(element: ElementTree.Element, image: int, identifier: int, difficult_as_crowd: bool) -> dict:
    left, top, right, bottom = (
        float(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    width, height = right - left + 1, bottom - top + 1
    return {
        "id": identifier,
        "image_id": image,
        "category_id": CATEGORIES.index(element.findtext("name")) + 1,
        "bbox": [left - 1, top - 1, width, height],
        "area": width * height,
        "iscrowd": int(element.findtext("difficult", "0")) if difficult_as_crowd else 0,
    }
