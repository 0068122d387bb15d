"""Which images a detector is trained on and what they show, found from columns instead of a record for
each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gen4det.core.errors import InputError
from gen4det.data.label_sets import Batch, LabelSet
from gen4det.data.label_tables import records_of

_AT_ONCE = 1 << 17
"""Images that are looked at together where a computation takes more memory than its result."""


class Contents:
    """Labels that each image shows, sorted and without duplicates, one behind the other.

    Attributes:
        labels: (M,) int32.
        starts: (N + 1,) int32, where those of each image begin; int64 where that does not fit.
    """

    def __init__(self, labels: np.ndarray, starts: np.ndarray):
        self.labels, self.starts = labels, starts

    @classmethod
    def of(cls, lists: Iterable[Iterable[int]]) -> "Contents":
        """The same of lists."""
        lists = [list(labels) for labels in lists]
        flat = np.array([label for labels in lists for label in labels], dtype=np.int32)
        return cls(flat, _starts([np.array([len(labels) for labels in lists], dtype=np.int64)]))

    @classmethod
    def joined(cls, parts: list["Contents"]) -> "Contents":
        """Those of several sources, one behind the other."""
        starts = _starts([np.diff(part.starts) for part in parts])
        return cls(np.concatenate([part.labels for part in parts]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, image: int) -> list[int]:
        return self.labels[self.starts[image] : self.starts[image + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return (self[image] for image in range(len(self)))

    def portions(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """(some images, their labels, where those of each begin among these), some at a time."""
        for first in range(0, len(self), _AT_ONCE):
            some = slice(first, min(first + _AT_ONCE, len(self)))
            begin = self.starts[some.start : some.stop + 1].astype(np.int64)
            yield some, self.labels[begin[0] : begin[-1]], begin - begin[0]

    def take(self, images: np.ndarray) -> "Contents":
        """Those of some images in another order."""
        counts = np.diff(self.starts)[images]
        taken = Contents(np.empty(int(counts.sum()), self.labels.dtype), _starts([counts]))
        for some, labels, starts in taken.portions():
            moved = self.starts[images[some]] - starts[:-1]
            labels[:] = self.labels[np.arange(len(labels)) + np.repeat(moved, counts[some])]
        return taken


def _starts(counts: list[np.ndarray]) -> np.ndarray:
    """Where those of each image begin, of arrays of counts one behind the other."""
    total = sum(int(part.sum()) for part in counts)
    starts = np.zeros(1 + sum(map(len, counts)), np.int32 if total < 2**31 else np.int64)
    np.cumsum(np.concatenate(counts), out=starts[1:])
    return starts


@dataclass(frozen=True)
class Index:
    """The images of one source that are trained on."""

    rows: np.ndarray
    """(N,) int32 or int64, their numbers in the set; ordered by id where it is a synthetic set's."""
    contents: Contents
    """Labels they show; crowd regions do not count."""


def index_images(
    labels: LabelSet,
    classes: dict[int, int],
    *,
    annotated: list[int] | None = None,
    by_image: bool = False,
    needs_masks: bool = False,
    keep_empty: bool = False,
) -> Index:
    """Look at all labels of a set once.

    What has no area inside its image teaches nothing, as in mmdet's CocoDataset: such objects, and those to
    be ignored, do not count, and images without any are left out.

    Args:
        classes: category id -> label.
        annotated: labels of the categories that count; None: all.
        by_image: whether each image says which do, "annotated_category_ids".
        needs_masks: whether every object must have a mask.
        keep_empty: whether images without objects stay.

    Raises:
        InputError: an object has no mask, or a category that `classes` lacks.
    """
    known = np.array(sorted(classes), dtype=np.int64)
    to_label = np.array([classes[category] for category in known.tolist()], dtype=np.int64)
    none = np.empty(0, dtype=np.int32 if len(labels) < 2**31 else np.int64)
    rows, ids, shown, counts = [none], [none.astype(np.int64)], [none.astype(np.int32)], [none]
    for batch in labels.stream():
        columns = batch.columns
        use = usable(batch)
        place = np.searchsorted(known, columns.whole("category_id", -1)).clip(max=max(0, len(known) - 1))
        label = to_label[place] if len(known) else place
        strange = use & ((known[place] if len(known) else -1) != columns.whole("category_id", -1))
        if strange.any():
            raise InputError(f"{labels.source}: annotation {_first(batch, strange)}: unknown category")
        if annotated is not None:
            use &= np.isin(label, annotated)
        if by_image:
            use &= _annotated_in(batch, label, classes, labels)
        if needs_masks and (use & ~batch.masked).any():
            raise InputError(
                f"{labels.source}: annotation {_first(batch, use & ~batch.masked)} has no segmentation; the "
                "detector learns masks"
            )
        images = columns.batch.num_rows
        objects = np.bincount(columns.image[use], minlength=images)
        stays = objects > 0
        if keep_empty:  # a synthetic set has no images without labels that are offered
            stays = np.bincount(columns.image[batch.offered], minlength=images) > 0
            stays |= not labels.by_id
        shows = use & (columns.whole("iscrowd") == 0)
        pairs = (
            np.unique(columns.image[shows] * len(classes) + label[shows]) if shows.any() else np.empty(0, int)
        )
        shown.append((pairs % max(1, len(classes))).astype(np.int32))
        counts.append(np.bincount(pairs // max(1, len(classes)), minlength=images)[stays].astype(none.dtype))
        rows.append((batch.first + np.flatnonzero(stays)).astype(none.dtype))
        ids.append(columns.of_image("id")[stays])
    rows, contents = np.concatenate(rows), Contents(np.concatenate(shown), _starts(counts))
    shown.clear()
    if labels.by_id:
        order = np.argsort(np.concatenate(ids), kind="stable")
        rows, contents = rows[order], contents.take(order)
    return Index(rows, contents)


def usable(batch: Batch) -> np.ndarray:
    """Which labels are objects or crowds to train on, bool; see `index_images`."""
    columns, (x, y, w, h) = batch.columns, batch.boxes.T
    width, height = (columns.of_image(side)[columns.image] for side in ("width", "height"))
    inside_x = np.minimum(x + w, width) - np.maximum(x, 0)
    inside_y = np.minimum(y + h, height) - np.maximum(y, 0)
    has_area = (inside_x > 0) & (inside_y > 0) & (w >= 1) & (h >= 1)
    return batch.offered & (columns.whole("ignore") == 0) & has_area


def _annotated_in(batch: Batch, label: np.ndarray, classes: dict[int, int], labels: LabelSet) -> np.ndarray:
    """Which labels are of a category that their image declares to be labelled, bool."""
    size = max(1, len(classes))
    declared = [
        place * size + one
        for place, (image, _) in enumerate(records_of(batch.columns.batch.drop_columns(["labels"])))
        for one in annotated_labels(image, classes, labels)
    ]
    return np.isin(batch.columns.image * size + label, declared)


def annotated_labels(image: dict, classes: dict[int, int], labels: LabelSet) -> list[int]:
    """Labels, sorted, of the categories that an image declares to be labelled.

    Raises:
        InputError: it declares none, or unknown ones.
    """
    ids = image.get("annotated_category_ids")
    if not isinstance(ids, list) or not classes.keys() >= set(ids):
        raise InputError(
            f"{labels.source}: image {image['id']}: annotated_category_ids is {ids!r}; expected a list "
            "of categories of the data set, since each image of this source says which it labels"
        )
    return sorted(classes[category] for category in ids)


def _first(batch: Batch, which: np.ndarray) -> int:
    return int(batch.columns.whole("id")[int(np.argmax(which))])
