"""PASCAL VOC: Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt; labelmap.txt, for CVAT.

Of sets with masks also SegmentationClass/*.png, SegmentationObject/*.png, ImageSets/Segmentation/<split>.txt.
"""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image

from gen4det.data.layouts.base import Layout, Picture, write_file
from gen4det.data.masks import rle_to_mask, segmentation_to_rle

VOID = 255
"""Index of pixels that belong to no class: VOC's border, here crowd regions."""


def palette() -> np.ndarray:
    """VOC's colours, uint8 (256, 3): the bits of an index, dealt out to red, green and blue."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> channel & 1) << 7 - bit).astype(np.uint8)
        index = index >> 3
    return colours


PALETTE = palette()


class Voc(Layout):
    """Boxes in whole pixels, counted from 1, the last one included; crowds are difficult objects.

    Masks are pictures of indices: a pixel is of the smallest object that covers it; crowds are void.
    """

    title = "PASCAL VOC"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stems: dict[str, list[str]] = {split: [] for split in self.splits}
        self.segmented: dict[str, list[str]] = {split: [] for split in self.splits}

    def image_folder(self, split: str) -> str:
        return "JPEGImages"

    def add(self, split: str, picture: Picture, labels: list[dict]) -> None:
        root = ElementTree.Element("annotation")
        for tag, text in (("folder", "JPEGImages"), ("filename", picture.name)):
            ElementTree.SubElement(root, tag).text = text
        ElementTree.SubElement(ElementTree.SubElement(root, "source"), "database").text = picture.origin
        size = ElementTree.SubElement(root, "size")
        for tag, number in (("width", picture.width), ("height", picture.height), ("depth", 3)):
            ElementTree.SubElement(size, tag).text = str(number)
        stem = picture.name.rpartition(".")[0]
        is_segmented = self._segment(stem, picture, labels)
        ElementTree.SubElement(root, "segmented").text = str(int(is_segmented))
        for label in labels:
            self._object(root, label, picture)
        ElementTree.indent(root)
        self.stems[split].append(stem)
        if is_segmented:
            self.segmented[split].append(stem)
        self.write(f"Annotations/{stem}.xml", ElementTree.tostring(root, encoding="unicode") + "\n")

    def _segment(self, stem: str, picture: Picture, labels: list[dict]) -> bool:
        """Write the masks of an image; False where it has none, or where some of its objects have none."""
        without = sum(not label.get("segmentation") for label in labels)
        if self.masks == "none" or not labels:
            return False
        if without:
            self.losses["masks, left out: other objects of their image have none"] += len(labels) - without
            return False
        if len(labels) >= VOID or len(self.categories) >= VOID:
            self.losses["masks, left out: more than 254 objects or categories"] += len(labels)
            return False
        objects, classes = (np.zeros((picture.height, picture.width), np.uint8) for _ in range(2))
        masks = [
            rle_to_mask(segmentation_to_rle(it["segmentation"], picture.height, picture.width)).astype(bool)
            for it in labels
        ]
        # Crowds first, then the largest: what is painted later lies on top.
        order = sorted(range(len(labels)), key=lambda k: (not labels[k]["iscrowd"], -int(masks[k].sum())))
        for k in order:
            is_crowd = labels[k]["iscrowd"]
            objects[masks[k]] = VOID if is_crowd else k + 1
            classes[masks[k]] = VOID if is_crowd else self.position[labels[k]["category_id"]] + 1
        for k, label in enumerate(labels):
            if not label["iscrowd"] and np.any(objects[masks[k]] != k + 1):
                self.losses["masks that a smaller object covers in part"] += 1
        for folder, indices in (("SegmentationObject", objects), ("SegmentationClass", classes)):
            image = Image.fromarray(indices, mode="P")
            image.putpalette(PALETTE.tobytes())
            stream = io.BytesIO()
            image.save(stream, format="PNG")
            write_file(self.root / folder / f"{stem}.png", stream.getvalue())
        return True

    def _object(self, root: ElementTree.Element, label: dict, picture: Picture) -> None:
        if label["iscrowd"]:
            self.losses["crowd regions, written as difficult objects"] += 1
        x, y, w, h = label["bbox"]
        corners = [
            *_pixels(x, x + w, picture.width),
            *_pixels(y, y + h, picture.height),
        ]
        if any(value != int(value) for value in (x, y, w, h)):
            self.losses["boxes rounded to whole pixels"] += 1
        element = ElementTree.SubElement(root, "object")
        facts = {"name": self.names[label["category_id"]], "pose": "Unspecified", "truncated": "0"}
        for tag, text in (facts | {"difficult": str(label["iscrowd"])}).items():
            ElementTree.SubElement(element, tag).text = text
        box = ElementTree.SubElement(element, "bndbox")
        for tag, number in zip(("xmin", "xmax", "ymin", "ymax"), corners, strict=True):
            ElementTree.SubElement(box, tag).text = str(number)

    def finish(self) -> None:
        for split, stems in self.stems.items():
            self.write(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
            if segmented := self.segmented[split]:
                self.write(f"ImageSets/Segmentation/{split}.txt", "".join(f"{it}\n" for it in segmented))
        names = ["background", *(category["name"] for category in self.categories)]
        colours = ["" if len(names) > VOID else ",".join(map(str, PALETTE[k])) for k in range(len(names))]
        lines = "".join(f"{name}:{colour}::\n" for name, colour in zip(names, colours, strict=True))
        self.write("labelmap.txt", f"# label:color_rgb:parts:actions\n{lines}")
        self.write("classes.txt", "".join(f"{category['name']}\n" for category in self.categories))


def _pixels(low: float, high: float, side: int) -> tuple[int, int]:
    """First and last pixel, from 1, of an extent in edges from 0: at least one pixel inside the image."""
    first = min(max(round(low), 0), side - 1)
    return first + 1, max(min(round(high), side), first + 1)
