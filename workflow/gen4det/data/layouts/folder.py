"""Export of a data set, image by image into a folder of its own: resumable, complete or not there."""

import itertools
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.provenance import write_json
from gen4det.data.annotations import is_object
from gen4det.data.images import ImageStore, encode_image, image_name
from gen4det.data.label_sets import LabelSet
from gen4det.data.layouts.base import Layout, Masks, Picture, write_file
from gen4det.data.layouts.coco import Coco
from gen4det.data.layouts.imagefolder import ImageFolder
from gen4det.data.layouts.voc import Voc
from gen4det.data.layouts.yolo import Yolo
from gen4det.data.masks import compressed

log = logging.getLogger(__name__)

LAYOUTS: dict[str, type[Layout]] = {"coco": Coco, "yolo": Yolo, "voc": Voc, "imagefolder": ImageFolder}
MARK = ".gen4det-export.json"
"""File that tells a folder of ours from any other; holds the fingerprint of what is exported."""
BATCH = 1000
"""Images after which everything is brought to the disk, and an interrupted export goes on."""
REAL = "real"
"""Origin of real images."""


@dataclass(frozen=True)
class Part:
    """Images of one origin in a split."""

    origin: str
    """"real", or the name of an engine; begins the names of its files."""
    labels: LabelSet
    """Checked; read image by image."""
    images: ImageStore

    @cached_property
    def rows(self) -> np.ndarray:
        """Numbers of its images, in their order."""
        return self.labels.rows_in_order()

    def __iter__(self) -> Iterator[tuple[dict, list[dict]]]:
        """Its images with their labels; those of an engine by their ids."""
        for row in self.rows.tolist():
            image, labels = self.labels.record(row)
            yield image, sorted(labels, key=lambda label: label["id"]) if self.labels.by_id else labels


@dataclass
class Exported:
    """What was written."""

    images: Counter = field(default_factory=Counter)
    """By (split, origin)."""
    objects: Counter = field(default_factory=Counter)
    """By (split, origin, category's name); crowds are none."""
    losses: Counter = field(default_factory=Counter)
    """What the layout could not hold, or hold only otherwise: how often."""


def export(
    splits: dict[str, list[Part]], categories: list[dict], layout: str, target: Path, fingerprint: str
) -> Exported:
    """Write a data set; `finish_export` then gives it its name.

    A call that was interrupted goes on: pictures of finished batches are not written again. Everything lies
    in a hidden folder beside the target until then. The disk is waited for once a batch, not for every file.
    Labels are read and written image by image: memory does not grow with their number.

    Args:
        splits: "train", or "train" and "val".
        categories: all of them are kept, whether they have objects or not.
        layout: one of `LAYOUTS`.
        fingerprint: of all that the data set depends on.

    Raises:
        InputError: the target is a folder of somebody else's that is not empty; an image cannot be read; the
            disk is full.
    """
    check_target(target)
    work, safe = _work_folder(target, fingerprint)
    writer = LAYOUTS[layout](work, categories, tuple(splits), _masks(splits))
    done, stems, label_number, number = Exported(), set(), 0, 0
    for split, parts in splits.items():
        folder = work / writer.image_folder(split)
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(len(part.rows) for part in parts)
        for part, record, labels in progress(_images(parts), f"exporting {split}", "image", total=total):
            number += 1
            plain = part.origin != REAL or part.images.is_plain(image_name(record))
            name = _file_name(part, record, stems, plain)
            if not plain:
                done.losses["images stored upright with 8 bits: their files were turned or had 16"] += 1
            if number > safe or not (folder / name).is_file():
                _copy(part, record, folder / name, plain)
            picture = Picture(name, number, record["width"], record["height"], part.origin)
            written = []
            for label in labels:
                label_number += 1
                written.append(_written(label, label_number, done.losses))
            writer.add(split, picture, written)
            done.images[split, part.origin] += 1
            for label in filter(is_object, labels):
                done.objects[split, part.origin, writer.names[label["category_id"]]] += 1
            if number % BATCH == 0 and number > safe:
                _mark(work, fingerprint, images=number)
    writer.finish()
    done.losses += writer.losses
    return done


def finish_export(target: Path, fingerprint: str) -> None:
    """Give a written data set its name, in place of an earlier export."""
    work = work_folder(target)
    _mark(work, fingerprint, complete=True)
    check_target(target)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(work, target)
    shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path) -> None:
    """Refuse a folder that is not empty and that no export of ours has made.

    Raises:
        InputError: such a folder, or a file.
    """
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).is_file():
        raise InputError(f"{target}: holds files that no export has made; empty it, or choose another folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: a file; expected a folder")


def work_folder(target: Path) -> Path:
    """Where a data set lies until it is complete."""
    return target.with_name(f".{target.name}.part")


def _mark(work: Path, fingerprint: str, *, images: int = 0, complete: bool = False) -> None:
    """Bring what was written to the disk, then say so: a mark never tells of files that a power cut can take.

    One call for all files: waiting for each of a thousand takes ten times as long (measured on ext4).
    """
    os.sync()
    write_json(work / MARK, {"fingerprint": fingerprint, "images": images, "complete": complete})


def _work_folder(target: Path, fingerprint: str) -> tuple[Path, int]:
    """The folder to write to, with what an interrupted export of the same has left there: so many images."""
    work = work_folder(target)
    mark = work / MARK
    if work.is_dir():
        found = json.loads(mark.read_text()) if mark.is_file() else {}
        if found.get("fingerprint") == fingerprint:
            log.info("%s: going on with an interrupted export", target)
            return work, found.get("images", 0)
        shutil.rmtree(work)
    work.mkdir(parents=True)
    _mark(work, fingerprint)
    return work, 0


def _images(parts: list[Part]) -> Iterator[tuple[Part, dict, list[dict]]]:
    return ((part, record, labels) for part in parts for record, labels in part)


def _masks(splits: dict[str, list[Part]]) -> Masks:
    objects = outlined = 0
    for part in itertools.chain.from_iterable(splits.values()):
        for batch in part.labels.stream():
            columns = batch.columns
            counts = batch.offered & (columns.whole("iscrowd") == 0) & (columns.whole("ignore") == 0)
            objects += int(counts.sum())
            outlined += int((counts & batch.masked).sum())
    return "none" if not outlined else "all" if outlined == objects else "some"


def _file_name(part: Part, record: dict, stems: set[str], plain: bool) -> str:
    """A name in one flat folder, whose stem nobody else has: labels are found by it."""
    given = Path(image_name(record))
    if part.origin == REAL:
        parts = list(given.parts)
    else:
        parts = [given.name]  # of a synthetic set: the shard is no part of the name
    stem = "_".join([part.origin, *parts[:-1], given.stem])
    stem = "_".join(stem.split())
    if stem in stems:
        stem = f"{stem}-{record['id']}"
    stems.add(stem)
    suffix = given.suffix.lower()
    return stem + (suffix if plain or suffix in (".jpg", ".jpeg") else ".png")


def _copy(part: Part, record: dict, target: Path, plain: bool) -> None:
    source = image_name(record)
    if plain:
        content = part.images.read(source)
    else:
        form = "png" if target.suffix == ".png" else "jpeg"
        content = encode_image(part.images.image(source), form)
    write_file(target, content)


def _written(label: dict, number: int, losses: Counter) -> dict:
    """A label with an id of the export; regions to be ignored are crowds."""
    written = label | {"id": number, "iscrowd": int(bool(label.get("iscrowd") or label.get("ignore")))}
    if label.get("ignore") and not label.get("iscrowd"):
        losses["regions to be ignored, written as crowds"] += 1
    if isinstance(label.get("segmentation"), dict):
        written["segmentation"] = compressed(label["segmentation"])
    return written
