"""PASCAL VOC: Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt; labelmap.txt, for CVAT."""

import xml.etree.ElementTree as ElementTree

from gen4det.data.layouts.base import Layout, Picture


class Voc(Layout):
    """Boxes in whole pixels, counted from 1, the last one included; crowds are difficult objects."""

    title = "PASCAL VOC"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.stems: dict[str, list[str]] = {split: [] for split in self.splits}

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
        ElementTree.SubElement(root, "segmented").text = "0"
        for label in labels:
            self._object(root, label, picture)
        ElementTree.indent(root)
        stem = picture.name.rpartition(".")[0]
        self.stems[split].append(stem)
        self.write(f"Annotations/{stem}.xml", ElementTree.tostring(root, encoding="unicode") + "\n")

    def _object(self, root: ElementTree.Element, label: dict, picture: Picture) -> None:
        if label.get("segmentation"):
            self.losses["masks, left out: the layout has boxes"] += 1
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
        colours = "".join(f"{category['name']}:::\n" for category in self.categories)
        self.write("labelmap.txt", f"# label:color_rgb:parts:actions\nbackground:::\n{colours}")
        self.write("classes.txt", "".join(f"{category['name']}\n" for category in self.categories))


def _pixels(low: float, high: float, side: int) -> tuple[int, int]:
    """First and last pixel, from 1, of an extent in edges from 0: at least one pixel inside the image."""
    first = min(max(round(low), 0), side - 1)
    return first + 1, max(min(round(high), side), first + 1)
