"""What a layout is: where images go, and what is written about them."""

import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gen4det.core.errors import InputError
from gen4det.data.masks import area_of_rle, polygons_to_rle, rle_to_polygons

Masks = Literal["all", "some", "none"]


@dataclass(frozen=True)
class Picture:
    """One image of an export."""

    name: str
    """Name of its file; without its ending it is unique, too."""
    identifier: int
    width: int
    height: int
    origin: str
    """"real", or the engine that made it."""


def write_file(path: Path, content: bytes) -> None:
    """Write one of many files, which only the end of a batch brings safely to the disk.

    Raises:
        InputError: the disk is full or the quota is used up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_full_disk(path):
        path.write_bytes(content)


@contextlib.contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raises InputError where the disk is full or the quota is used up."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: {os.strerror(error.errno)}; make room and run it again") from error
        raise


class Layout(ABC):
    """Writes one data set; images are copied by `data.layouts.folder`.

    Args:
        root: folder of the data set.
        categories: all of them, COCO's records; ids are those of the data set.
        splits: "train", or "train" and "val".
        masks: whether all objects have masks, some or none.
    """

    title: str
    """What it is called in a data card."""

    def __init__(self, root: Path, categories: list[dict], splits: tuple[str, ...], masks: Masks):
        self.root, self.categories, self.splits, self.masks = root, categories, splits, masks
        self.position = {category["id"]: place for place, category in enumerate(categories)}
        self.names = {category["id"]: category["name"] for category in categories}
        self.losses: Counter[str] = Counter()
        """What the layout cannot hold: how often."""

    @abstractmethod
    def image_folder(self, split: str) -> str:
        """Folder of a split's images, relative to the root."""

    @abstractmethod
    def add(self, split: str, picture: Picture, labels: list[dict]) -> None:
        """Take an image with its labels, COCO's records; masks: polygons or compressed run-length codes."""

    @abstractmethod
    def finish(self) -> None:
        """Write what stands about the whole set."""

    def write(self, name: str, text: str) -> None:
        """Write a file of the data set; an interrupted export writes all of them again."""
        write_file(self.root / name, text.encode())

    def polygons(self, label: dict, picture: Picture) -> list[list[float]]:
        """The mask of a label as polygons; counts it where holes are filled."""
        segmentation = label["segmentation"]
        if isinstance(segmentation, list):
            return segmentation
        polygons = rle_to_polygons(segmentation)
        filled = area_of_rle(polygons_to_rle(polygons, picture.height, picture.width)) if polygons else 0
        if filled != area_of_rle(segmentation):
            self.losses["masks whose holes are filled"] += 1
        return polygons
