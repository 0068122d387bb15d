"""Sets of labels to train on: tables, and which of their labels count.

A synthetic set is `set.json` and `verdicts.arrow` beside it. The first names the tables of its shards, with
their hashes, the categories, counts and the reasons of rejections; the second has one byte for each of their
labels, in the same batches: 0, the label is offered for training, k, it is rejected for the k-th reason, or
`BY_ENGINE`. Labels are copied nowhere. A plain file in COCO's layout whose info names the folder of its
images is a set, too.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gen4det.core.errors import InputError, RefusedInput
from gen4det.core.json_files import read_json
from gen4det.data.annotations import frequency_group
from gen4det.data.label_columns import Columns, array_of, four, known
from gen4det.data.label_tables import LabelTable, records_of

OFFERED, BY_ENGINE = 0, 255
"""Verdicts: nothing is against the label; the engine itself rejected it, its table says why."""
VERDICTS = "verdicts.arrow"


@dataclass(frozen=True)
class Batch:
    """Labels of some images as columns, one entry per label."""

    first: int
    """Number of the first image in the set."""
    columns: Columns
    offered: np.ndarray
    """Whether the label counts, bool."""
    boxes: np.ndarray
    """[x, y, width, height] in pixels, float64 (labels, 4)."""
    masked: np.ndarray
    """Whether it has a mask, bool."""


class LabelSet:
    """Images and the labels that count, read from tables.

    Args:
        source: the file that messages name.
        tables: one behind the other.
        about: "info" and "categories"; of a synthetic set all of set.json.
        verdicts: batches of verdicts for the batches of the tables; None: all labels count.
    """

    def __init__(
        self,
        source: str | Path,
        tables: list[LabelTable],
        about: dict,
        verdicts: list[pa.RecordBatch] | None = None,
    ):
        self.source, self.tables, self.about, self.verdicts = Path(source), tables, about, verdicts
        self._batches = [batch for table in tables for batch in table.batches]
        self._starts = np.cumsum([0] + [batch.num_rows for batch in self._batches])
        if verdicts is not None and len(verdicts) != len(self._batches):
            raise InputError(f"{source}: verdicts on other labels than the tables hold; filter again")

    @classmethod
    def of(cls, data: dict, source: str | Path) -> "LabelSet":
        """All labels of a dictionary of COCO's or LVIS's layout."""
        table = LabelTable.of(data)
        return cls(source, [table], table.about)

    @property
    def info(self) -> dict:
        """The key "info" of the dictionary."""
        return self.about.get("info") or {}

    @property
    def categories(self) -> list[dict]:
        """Records of the categories."""
        return self.about["categories"]

    @property
    def by_id(self) -> bool:
        """Whether images are ordered by their ids: those of several shards are, whatever shard they lie
        in."""
        return self.verdicts is not None

    def __len__(self) -> int:
        """Number of images, those without a label that counts included."""
        return int(self._starts[-1])

    def stream(self) -> Iterator[Batch]:
        """Columns of all labels, a batch at a time in memory."""
        batches = (batch for table in self.tables for batch in table.stream())
        for number, batch in enumerate(batches):
            columns = Columns(batch)
            boxes, masked = columns.boxes(), columns.known("counts") | columns.known("outline")
            offered = np.ones(columns.count, dtype=bool)
            if self.verdicts is not None:
                verdicts = self.verdicts[number]
                offered = verdict_column(verdicts) == OFFERED
                if "outline" in verdicts.schema.names:
                    drawn_anew = known(verdicts.column("outline"))
                    boxes = np.where(drawn_anew[:, None], four(verdicts.column("bbox")), boxes)
            yield Batch(int(self._starts[number]), columns, offered, boxes, masked)

    def rows_in_order(self) -> np.ndarray:
        """Numbers of the images in the order of the set, int64: of a synthetic one those with a label that
        counts, by id; else all, as they stand."""
        if not self.by_id:
            return np.arange(len(self))
        rows, ids = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in self.stream():
            columns = batch.columns
            counts = np.bincount(columns.image[batch.offered], minlength=columns.batch.num_rows)
            rows.append(batch.first + np.flatnonzero(counts))
            ids.append(columns.of_image("id")[counts > 0])
        return np.concatenate(rows)[np.argsort(np.concatenate(ids), kind="stable")]

    def record(self, row: int) -> tuple[dict, list[dict]]:
        """An image by its number, and the labels of it that count."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        place = row - int(self._starts[number])
        image, labels = next(records_of(self._batches[number].slice(place, 1)))
        if self.verdicts is None:
            return image, labels
        offsets = self._batches[number].column("labels").offsets
        verdicts = self.verdicts[number].slice(offsets[place].as_py(), len(labels))
        return image, [label for label, reason in judged(labels, verdicts) if reason == OFFERED]

    def counted_groups(self) -> dict[int, str]:
        """Category id -> "r", "c" or "f", from the images that show it; as `annotations.counted_groups`."""
        holders: Counter = Counter()
        for batch in self.stream():
            columns = batch.columns
            objects = batch.offered & (columns.whole("iscrowd") == 0) & (columns.whole("ignore") == 0)
            pairs = np.stack([columns.whole("category_id")[objects], columns.image[objects]], axis=1)
            holders.update(np.unique(pairs, axis=0)[:, 0].tolist())
        return {category["id"]: frequency_group(holders[category["id"]]) for category in self.categories}

    def images(self) -> Iterator[dict]:
        """Records of all images, without their labels, as the tables have them."""
        for table in self.tables:
            for batch in table.stream():
                for image, _ in records_of(batch.drop_columns(["labels"])):
                    yield image

    def any_image_has(self, key: str) -> bool:
        """Whether some image has a further key, one that is no column."""
        batches = (batch for table in self.tables for batch in table.stream())
        further = (text for batch in batches for text in batch.column("more").drop_null().to_pylist())
        return any(key in json.loads(text) for text in further)

    def any_mask(self) -> bool:
        """Whether a label that counts has a mask."""
        return any((batch.offered & batch.masked).any() for batch in self.stream())


def verdict_column(batch: pa.RecordBatch) -> np.ndarray:
    """Verdicts of a batch, uint8 (labels,)."""
    return array_of(batch.column("verdict"))


def judged(labels: list[dict], verdicts: pa.RecordBatch) -> list[tuple[dict, int]]:
    """Labels with their verdicts; offered ones with masks as the set has them."""
    found = verdict_column(verdicts).tolist()
    if "outline" not in verdicts.schema.names:
        return list(zip(labels, found, strict=True))
    return [
        ({**label, "bbox": new["bbox"], "area": new["area"], "segmentation": json.loads(new["outline"])}, it)
        if it == OFFERED and new["outline"] is not None
        else (label, it)
        for label, it, new in zip(labels, found, verdicts.to_pylist(), strict=True)
    ]


# --- synthetic sets -------------------------------------------------------------------------------


def describe_tables(output: str | Path, tables: list[LabelTable], hashes: list[str]) -> list[dict]:
    """What a set says of the tables of its shards, so that others are noticed.

    Args:
        output: file of the set.
        hashes: SHA-256 of the tables.
    """
    folder, described = Path(output).resolve().parent, []
    for table, digest in zip(tables, hashes, strict=True):
        archive = table.path.parent / table.about["info"]["archive"]
        described.append({
            "file": Path(os.path.relpath(table.path.resolve(), folder)).as_posix(),
            "bytes": table.path.stat().st_size,
            "sha256": digest,
            "digest": table.about["info"]["digest"],
            "archive_bytes": archive.stat().st_size,
        })  # fmt: skip
    return described


def open_set(path: str | Path) -> LabelSet:
    """A synthetic set, its tables mapped into memory.

    Raises:
        RefusedInput: nothing was kept of what was drawn.
        InputError: not a synthetic set, or a table or an archive of a shard is gone, cut short or another
            one.
    """
    path = Path(path)
    data = read_json(path, "a synthetic set")
    info = data.get("info") or {}
    if "refused" in info:
        raise RefusedInput(path, info["refused"])
    if not isinstance(info.get("images"), str):
        raise InputError(f"{path}: not a synthetic set: info does not say where its images lie")
    if "tables" not in data:
        return plain_set(data, path)
    return _mapped(path, data, check_archives=True)


def plain_set(data: dict, path: str | Path) -> LabelSet:
    """A set that is a plain dictionary.

    Raises:
        InputError: not the layout of COCO or LVIS.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InputError(
                f"{path}: no list of {key}; expected a synthetic set, or the layout of COCO or LVIS"
            )
    return LabelSet.of(data, path)


def _mapped(path: Path, data: dict, *, check_archives: bool) -> LabelSet:
    tables = []
    for said in data["tables"]:
        file = Path(os.path.normpath(path.parent / said["file"]))
        table = LabelTable.open(file)
        if file.stat().st_size != said["bytes"] or table.about["info"].get("digest") != said["digest"]:
            raise InputError(f"{file}: other labels than {path} was chosen from; filter again")
        archive = Path(os.path.normpath(file.parent / table.about["info"]["archive"]))
        if check_archives and not archive.is_file():
            raise InputError(f"{archive}: no such zip of images, but {path} names it")
        if check_archives and archive.stat().st_size != said["archive_bytes"]:
            raise InputError(
                f"{archive}: truncated, or not the images that {path} names; draw the shard again"
            )
        tables.append(table)
    verdicts = path.with_name(VERDICTS)
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(verdicts)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except FileNotFoundError as error:
        raise InputError(f"{verdicts}: no such file; it belongs to {path}") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{verdicts}: cut short, or no verdicts: {error}") from error
    return LabelSet(path, tables, data, batches)


def as_dictionaries(path: str | Path) -> tuple[dict, dict]:
    """A synthetic set in COCO's or LVIS's layout, all of it in memory: see `dictionaries`.

    Raises:
        InputError: not a synthetic set, or a table of it is gone or another one.
    """
    path = Path(path)
    data = read_json(path, "a synthetic set")
    is_plain = "tables" not in data
    return dictionaries(plain_set(data, path) if is_plain else _mapped(path, data, check_archives=False))


def dictionaries(labels: LabelSet) -> tuple[dict, dict]:
    """A set in COCO's or LVIS's layout, all of it in memory: what is offered, and what is not.

    LVIS: no category is claimed to be absent from an image (`neg_category_ids` is empty); one whose label was
    rejected is not exhaustively labelled in it.

    Returns:
        (offered, rejected); the second has the key "rejected", labels with their "reason", and the images
        concerned. Images are ordered by id, labels by id, those rejected by image and id; of a plain file
        images as they stand, and labels by image.
    """
    data = labels.about
    if labels.verdicts is None:
        about = {"info": labels.info, "categories": labels.categories}
        return labels.tables[0].as_coco(), about | {"images": [], "rejected": []}
    lvis = data["form"] == "lvis"
    batches = [batch for table in labels.tables for batch in table.batches]
    images, every, annotations, rejected = [], [], [], []
    for batch, verdicts in zip(batches, labels.verdicts, strict=True):
        first = 0
        for image, of_image in records_of(batch):
            kept, lost = [], []
            for label, verdict in judged(of_image, verdicts.slice(first, len(of_image))):
                if verdict == OFFERED:
                    kept.append(label if lvis else {"iscrowd": 0} | label)
                elif verdict == BY_ENGINE:
                    lost.append(label)
                else:
                    lost.append({**label, "reason": data["reasons"][verdict - 1]})
            first += len(of_image)
            every.append((image, bool(lost) or not kept))
            if kept:
                incomplete = sorted({label["category_id"] for label in lost})
                empty = {"coco_url": image["file_name"], "neg_category_ids": []} if lvis else {}
                more = {"not_exhaustive_category_ids": incomplete} if lvis else {}
                images.append(image | empty | more)
            annotations += kept
            rejected += lost
    images.sort(key=lambda image: image["id"])
    annotations.sort(key=lambda label: label["id"])
    rejected.sort(key=lambda label: (label["image_id"], label.get("id", 0)))
    concerned = sorted((image for image, is_concerned in every if is_concerned), key=lambda it: it["id"])
    offered = {"info": data["info"], "images": images, "annotations": annotations}
    other = {"info": data["info"], "images": concerned, "rejected": rejected}
    other["reasons"] = dict(Counter(label["reason"] for label in rejected))
    return offered | {"categories": data["categories"]}, other | {"categories": data["all_categories"]}
