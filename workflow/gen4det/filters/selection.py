"""From the shards of a run to one synthetic set: what is offered for training, and what is not and why.

A shard's table is read a batch at a time, so that memory does not grow with the number of labels: what is
kept of a batch is a byte per label, and the ids of images where filters compare them.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write
from gen4det.data.datasets import Format
from gen4det.data.label_columns import Columns, as_arrow
from gen4det.data.label_sets import BY_ENGINE, OFFERED
from gen4det.data.label_tables import LabelTable
from gen4det.data.masks import area_of_rle, box_of_rle, polygons_to_rle, rle_to_polygons
from gen4det.data.validation import TOLERANCE
from gen4det.filters.measurements import Measurements
from gen4det.filters.settings import FilterSettings
from gen4det.filters.verdicts import REASONS, UNUSED, Judgement, offered_images, refuse_beyond


@dataclass
class Tally:
    """What was counted of all labels of a run."""

    images: int = 0
    """Generated images."""
    labelled: int = 0
    """Images with a label that is offered."""
    kept: Counter = field(default_factory=Counter)
    """Category id -> offered labels of objects that were drawn."""
    rejected: Counter = field(default_factory=Counter)
    """(category id, reason) -> rejected labels of objects that were drawn."""
    reasons: Counter = field(default_factory=Counter)
    """Reason -> all rejected labels, those of real objects and crowds included."""
    instances: Counter = field(default_factory=Counter)
    """Category id -> offered labels that are objects: no crowds, none to be ignored."""
    holders: Counter = field(default_factory=Counter)
    """Category id -> images with such a label."""
    offered: set = field(default_factory=set)
    """Ids of categories with an offered label, perhaps of a crowd alone."""

    def add(self, columns: Columns, verdicts: np.ndarray) -> None:
        """Count the labels of a batch."""
        categories, crowd = columns.whole("category_id"), columns.whole("iscrowd") != 0
        drawn, offered = (columns.whole("real") == 0) & ~crowd, verdicts == OFFERED
        self.images += columns.batch.num_rows
        self.labelled += len(np.unique(columns.image[offered]))
        self.kept.update(_counted(categories[offered & drawn]))
        self.offered |= set(np.unique(categories[offered]).tolist())
        objects = offered & ~crowd & (columns.whole("ignore") == 0)
        self.instances.update(_counted(categories[objects]))
        pairs = np.unique(np.stack([categories[objects], columns.image[objects]], axis=1), axis=0)
        self.holders.update(_counted(pairs[:, 0]))
        for reason, labels in _by_reason(columns, verdicts):
            self.reasons[reason] += int(labels.sum())
            for category, count in _counted(categories[labels & drawn]).items():
                self.rejected[category, reason] += count

    def join(self, other: "Tally") -> None:
        """Add what was counted of other images."""
        self.images += other.images
        self.labelled += other.labelled
        for name in ("kept", "rejected", "reasons", "instances", "holders"):
            getattr(self, name).update(getattr(other, name))
        self.offered |= other.offered


def _counted(values: np.ndarray) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))


def _by_reason(columns: Columns, verdicts: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(reason, (labels,) bool) of all rejected labels."""
    for code in np.unique(verdicts).tolist():
        if code not in (OFFERED, BY_ENGINE):
            yield REASONS[code - 1], verdicts == code
    if (verdicts == BY_ENGINE).any():
        codes, names = columns.codes("reason")
        for code, name in enumerate(names):
            yield name, (codes == code) & (verdicts == BY_ENGINE)


@dataclass(frozen=True)
class Selection:
    """All labels of a run, each offered or rejected; together they are what the engine was asked for."""

    verdicts: list[list[np.ndarray]]
    """Per shard and batch of its table, (labels,) uint8; see `data.label_sets`."""
    tally: Tally


@dataclass(frozen=True)
class JudgedShard:
    """What is known of one shard without the others."""

    verdicts: list[np.ndarray]
    """Per batch of its table, (labels,) uint8."""
    images: np.ndarray
    """Ids of all images, int64."""
    labelled: np.ndarray
    """Ids of those with a generated object that passed."""
    tally: Tally


SHARDS_APART = 16
"""Shards from which on other processes are worth their start."""


def select(
    tables: list[LabelTable],
    categories: list[dict],
    settings: FilterSettings,
    measured: Callable[[int], Measurements] = lambda shard: Measurements(),
    *,
    processes: int = 1,
) -> Selection:
    """Judge the labels of all shards of a run.

    Each shard is judged for itself; what `max_images` offers of all is chosen and counted in the end.

    Args:
        tables: of all shards, as `data.shards.open_run` gives them.
        categories: of the training split the engine generated for; they are those of the set.
        measured: from the number of a shard to what filters look at beside its labels.
        processes: how many share the shards, from `SHARDS_APART` shards on; they change no result. `measured`
            must then be picklable.

    Raises:
        InputError: the shards know categories that the training split does not have, or hold broken labels.
    """
    names = {category["id"]: category["name"] for category in categories}
    for category in tables[0].about["categories"]:
        identifier, name = category["id"], category["name"]
        if names.get(identifier) != name:
            raise InputError(
                f"shards: drawn for another data set: their category {identifier} is {name!r}, "
                f"here it is {names.get(identifier)!r}"
            )
    judge = partial(judge_shard, settings=settings, categories=np.array(sorted(names)))
    numbers, verdicts, labelled, images, tally = range(len(tables)), [], [], [], Tally()
    with _several(processes if len(tables) >= SHARDS_APART else 1, judge, measured) as each:
        judged = (judge(table, measured(number)) for number, table in enumerate(tables))
        if each is not map:
            judged = each(_judge_here, numbers, [it.path for it in tables])
        for shard in judged:
            verdicts.append(shard.verdicts)
            images.append(shard.images)
            labelled.append(shard.labelled)
            tally.join(shard.tally)
        ids, times = np.unique(np.concatenate(images), return_counts=True)
        if (times > 1).any():
            raise InputError(f"shards: image id {ids[times > 1][0]} is used {times[times > 1][0]} times")
        if settings.max_images is not None:
            offered = offered_images(np.concatenate(labelled), settings.max_images)
            sources = tables if each is map else [it.path for it in tables]
            wanted = [ids[np.isin(ids, offered)] for ids in images]
            tally, before, verdicts = Tally(), verdicts, []
            for found, counts in each(_without_spare, sources, before, wanted):
                verdicts.append(found)
                tally.join(counts)
    return Selection(verdicts, tally)


@contextmanager
def _several(processes: int, *parts: Callable) -> Iterator[Callable]:
    """`map`, in this process or, in order, in several, which get the parts of `_judge_here` once."""
    if processes <= 1:
        yield map
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_prepare, initargs=parts) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)


def judge_shard(
    table: LabelTable, measured: Measurements, *, settings: FilterSettings, categories: np.ndarray
) -> JudgedShard:
    """Judge the labels of a shard by all filters but `max_images`, a batch at a time.

    Args:
        categories: sorted ids of the data set.

    Raises:
        InputError: broken labels, see `check_labels`.
    """
    verdicts, images, labelled, tally = [], [], [], Tally()
    for columns in map(Columns, table.stream()):
        judged = Judgement(columns, settings, measured)
        check_labels(columns, judged.verdicts == OFFERED, categories, table.path)
        verdicts.append(judged.verdicts)
        images.append(columns.of_image("id").copy())
        labelled.append(images[-1][judged.labelled])
        if settings.max_images is None:  # else it is counted when that is known
            tally.add(columns, judged.verdicts)
    none = np.empty(0, np.int64)
    return JudgedShard(verdicts, np.concatenate([none, *images]), np.concatenate([none, *labelled]), tally)


_here: dict[str, Callable] = {}  # in a process of `_several`


def _prepare(judge: Callable, measured: Callable) -> None:
    _here.update(judge=judge, measured=measured)


def _judge_here(number: int, path: Path) -> JudgedShard:
    return _here["judge"](LabelTable.open(path), _here["measured"](number))


def _without_spare(
    table: LabelTable | Path, verdicts: list[np.ndarray], offered: np.ndarray
) -> tuple[list[np.ndarray], Tally]:
    """Verdicts with those on images beyond `max_images`, and what is counted then."""
    table, tally = table if isinstance(table, LabelTable) else LabelTable.open(table), Tally()
    for columns, codes in zip(map(Columns, table.stream()), verdicts, strict=True):
        refuse_beyond(columns, codes, offered)
        tally.add(columns, codes)
    return verdicts, tally


def check_labels(columns: Columns, offered: np.ndarray, categories: np.ndarray, source: Path) -> None:
    """Look for labels that no detector can be trained on, among those that are offered.

    Args:
        offered: (labels,) bool.
        categories: sorted ids of the data set.

    Raises:
        InputError: a label has no id, no area, an unknown category, a mask of another size than its image, or
            a box that is not finite, has no extent or exceeds its image.
    """
    boxes = columns.boxes()
    size = np.stack([columns.of_image(side)[columns.image] for side in ("width", "height")], axis=1)
    corner, extent = boxes[:, :2], boxes[:, 2:]
    masked, shape = columns.known("counts"), columns.mask_sizes()
    sound = {
        "no id": columns.known("id"),
        "unknown category": np.isin(columns.whole("category_id", -1), categories),
        "expected four finite numbers [x, y, width, height]": np.isfinite(boxes).all(axis=1),
        "box of zero area": (extent > 0).all(axis=1),
        "box outside its image": ((corner >= -TOLERANCE) & (corner + extent <= size + TOLERANCE)).all(axis=1),
        "no area": columns.numbers("area") > 0,
        "mask of another size than its image": ~masked | (shape[:, ::-1] == size).all(axis=1),
    }
    for problem, fine in sound.items():
        if (bad := offered & ~fine).any():
            identifier = columns.whole("id")[int(np.argmax(bad))]
            raise InputError(f"{source}: annotation {identifier}: {problem}")


# --- the set --------------------------------------------------------------------------------------


def write_verdicts(
    path: str | Path, tables: list[LabelTable], selection: Selection, segmentation: str
) -> None:
    """The verdicts on all labels, a record batch for each batch of the tables.

    Args:
        segmentation: "rle" or "polygon". Polygons have no holes: the offered labels then have areas and boxes
            of their own, which stand beside the verdicts.
    """
    fields = [("verdict", pa.uint8())]
    if segmentation == "polygon":
        fields += [("bbox", pa.list_(pa.float64(), 4)), ("area", pa.float64()), ("outline", pa.string())]
    schema = pa.schema(fields)
    with (
        atomic_write(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as out,
    ):
        for table, of_shard in zip(tables, selection.verdicts, strict=True):
            if segmentation == "rle":
                for verdicts in of_shard:
                    out.write_batch(pa.record_batch([as_arrow(verdicts)], schema=schema))
                continue
            for columns, verdicts in zip(map(Columns, table.stream()), of_shard, strict=True):
                out.write_batch(
                    pa.record_batch([as_arrow(verdicts), *_polygons(columns, verdicts)], schema=schema)
                )


def _polygons(columns: Columns, verdicts: np.ndarray) -> list[pa.Array]:
    """Boxes, areas and outlines of the offered labels with masks; null for the others."""
    boxes, areas, outlines = [], [], []
    shapes = zip(columns.field("counts").to_pylist(), columns.field("size").to_pylist(), strict=True)
    for verdict, (counts, size) in zip(verdicts.tolist(), shapes, strict=True):
        box = area = outline = None
        if verdict == OFFERED and counts is not None:
            polygons = rle_to_polygons({"counts": counts.decode("ascii"), "size": size})
            filled = polygons_to_rle(polygons, *size)
            box, area = [float(it) for it in box_of_rle(filled)], float(area_of_rle(filled))
            outline = json.dumps(polygons, separators=(",", ":"))
        boxes.append(box)
        areas.append(area)
        outlines.append(outline)
    return [
        pa.array(boxes, pa.list_(pa.float64(), 4)),
        pa.array(areas, pa.float64()),
        pa.array(outlines, pa.string()),
    ]


def counted_categories(
    tally: Tally, categories: list[dict], groups: dict[int, str], form: Format
) -> list[dict]:
    """Categories of the set.

    LVIS: `image_count` and `instance_count` are those of the synthetic set, `frequency` stays the training
    split's (released code of MosaicFusion). Categories without a label are left out.
    """
    found = []
    for category in categories:
        identifier = category["id"]
        if identifier in tally.offered and form == "lvis":
            counts = {"image_count": tally.holders[identifier], "instance_count": tally.instances[identifier]}
            found.append({**category, "frequency": groups[identifier], **counts})
        elif identifier in tally.offered:
            found.append(category)
    return found


# --- table ----------------------------------------------------------------------------------------

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


def kept_fractions(tally: Tally, categories: list[dict], groups: dict[int, str]) -> list[dict]:
    """How many labels were generated and kept: all, per frequency group, per category.

    Counted are objects that were drawn and judged: not those of a real image around them ("real"), not
    crowds, not images beyond `generations_per_reference`, which are not used at all.

    Args:
        groups: category id -> "r", "c" or "f", of the training split.

    Returns:
        Rows with the keys level ("all", "frequency", "category"), id (of a category, else None), name,
        frequency, generated, kept, rejected, kept_fraction (None where nothing was generated) and one key per
        reason of a rejection, in alphabetical order.
    """
    reasons = sorted({reason for _, reason in tally.rejected if reason != UNUSED})

    def row(level: str, name: str, some: list[int], identifier: int | None, group: str | None) -> dict:
        by_reason = {reason: sum(tally.rejected[c, reason] for c in some) for reason in reasons}
        good, bad = sum(tally.kept[c] for c in some), sum(by_reason.values())
        return {
            "level": level,
            "id": identifier,
            "name": name,
            "frequency": group,
            "generated": good + bad,
            "kept": good,
            "rejected": bad,
            "kept_fraction": round(good / (good + bad), 4) if good + bad else None,
            **by_reason,
        }

    every = [category["id"] for category in categories]
    rows = [row("all", "all", every, None, None)]
    for group, name in GROUPS.items():
        rows.append(row("frequency", name, [c for c in every if groups[c] == group], None, group))
    for category in categories:
        identifier = category["id"]
        rows.append(row("category", category["name"], [identifier], identifier, groups[identifier]))
    return rows


def to_csv(rows: list[dict]) -> str:
    """Rows of equal keys as CSV with a header; None becomes an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
