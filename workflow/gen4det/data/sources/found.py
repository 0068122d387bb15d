"""What a reader finds: the splits of a folder, each as a dictionary of COCO and the folder of its images."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gen4det.data.suffixes import IMAGE_SUFFIXES

WHOLE = "all"
"""Name of the only split of a folder that is not divided into training and validation."""

_WORDS = (("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test"))


@dataclass
class FoundSplit:
    """One split as it was read; nothing but its layout has been checked."""

    data: dict
    """COCO's lists; an annotation may have "difficult": 1, PASCAL VOC's flag."""
    images: Path
    """Folder or zip of the images."""
    source: str
    """Name in messages: the annotation file, or the folder."""


def split_of(name: str) -> str:
    """ "train", "val" or "test", whichever a file or folder name says; `WHOLE` if none."""
    return next((split for word, split in _WORDS if word in name.lower()), WHOLE)


def files_below(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files with these endings, sorted; hidden files and folders are passed over."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(place, name)


def images_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Image files below a folder by their name without its ending."""
    found: dict[str, list[Path]] = {}
    for path in files_below(folder, IMAGE_SUFFIXES):
        found.setdefault(path.stem, []).append(path)
    return found
