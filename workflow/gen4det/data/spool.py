"""Annotations that lie on the disk while they are checked and written: a list of records that takes 16 bytes
of memory for each.

They are read from JSON once (`core.json_stream`) and kept in Python's marshal format, which gives them back
as they were, eight times as fast.
"""

import marshal
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.json_stream import stream_json

_TOGETHER = 256  # records that are read at a time

Records = Sequence[dict]


class Spooled(Sequence):
    """Records in a temporary file, or some of them, perhaps changed; read anew whenever they are asked for.

    Args:
        files: where their parts lie one behind the other: all but the masks, and the masks.
        starts: (all + 1,) where the parts begin, of each file.
        rows: (N,) numbers of those that count, ascending.
        changes: applied to a record one after the other; they return another one.
    """

    def __init__(self, files: tuple, starts: tuple, rows: np.ndarray, changes: tuple[Callable, ...] = ()):
        self._files, self._starts, self._rows, self._changes = files, starts, rows, changes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int | slice) -> dict | list[dict]:
        if isinstance(place, slice):
            return list(self._read(self._rows[place]))
        return next(self._read(self._rows[[place]]))

    def __iter__(self) -> Iterator[dict]:
        for start in range(0, len(self), _TOGETHER):
            yield from self._read(self._rows[start : start + _TOGETHER])

    def _read(self, rows: np.ndarray) -> Iterator[dict]:
        if not len(rows):
            return
        parts = [_pieces(*part, rows) for part in zip(self._files, self._starts, strict=True)]
        for record, *mask in zip(*parts, strict=True):
            record = marshal.loads(record)
            if mask and mask[0]:
                record["segmentation"] = marshal.loads(mask[0])
            for change in self._changes:
                record = change(record)
            yield record

    def without_masks(self) -> "Spooled":
        """The same, read without their masks, which are most of their bytes."""
        return Spooled(self._files[:1], self._starts[:1], self._rows, self._changes)

    def kept(self, keep: Callable[[dict], bool]) -> "Spooled":
        """Those of which it is true."""
        mask = np.fromiter(map(keep, self), dtype=bool, count=len(self))
        return Spooled(self._files, self._starts, self._rows[mask], self._changes)

    def changed(self, change: Callable[[dict], dict]) -> "Spooled":
        """The same, changed one by one."""
        return Spooled(self._files, self._starts, self._rows, (*self._changes, change))

    def by_image(self) -> "ByImage":
        """The same, found by their images."""
        return ByImage(self)


def _pieces(file, starts: np.ndarray, rows: np.ndarray) -> Iterator[memoryview]:
    first, last = int(starts[rows[0]]), int(starts[rows[-1] + 1])
    block = memoryview(os.pread(file.fileno(), last - first, first))
    for start, stop in zip((starts[rows] - first).tolist(), (starts[rows + 1] - first).tolist(), strict=True):
        yield block[start:stop]


class ByImage:
    """Records of an image by its id, in their order."""

    def __init__(self, records: Spooled):
        self._records = records
        images = (it["image_id"] for it in records.without_masks())
        images = np.fromiter(images, dtype=np.int64, count=len(records))
        self._order = np.argsort(images, kind="stable")
        self._images = images[self._order]

    def __getitem__(self, image: int) -> list[dict]:
        low, high = np.searchsorted(self._images, [image, image + 1])
        return [self._records[place] for place in self._order[low:high].tolist()]


class _Writer:
    def __init__(self, folder: str | Path):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._folder, self._starts = folder, (array("q", [0]), array("q", [0]))
        self._files = tuple(tempfile.TemporaryFile(dir=folder) for _ in range(2))  # they go with us

    def add(self, record: object) -> None:
        mask = b""
        if isinstance(record, dict) and "segmentation" in record:
            mask = marshal.dumps(record.pop("segmentation"))
        for file, starts, content in zip(
            self._files, self._starts, (marshal.dumps(record), mask), strict=True
        ):
            with self._naming():
                file.write(content)
            starts.append(starts[-1] + len(content))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._folder}: {error.strerror}; make room and run it again") from error

    def finish(self) -> Spooled:
        with self._naming():
            for file in self._files:
                file.flush()
        starts = tuple(map(np.array, self._starts))
        return Spooled(self._files, starts, np.arange(len(starts[0]) - 1))


def load_spooled(path: str | Path, folder: str | Path) -> dict:
    """As `annotations.load_annotations`, with the annotations on the disk.

    Args:
        folder: where there is room for them, as much as for the file.

    Raises:
        InputError: missing file, not JSON, or not the layout of COCO and LVIS; the disk is full.
    """
    spool = _Writer(folder)
    data = stream_json(path, "annotations in the layout of COCO or LVIS", {"annotations": spool.add})
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InputError(f"{path}: no list of {key}; expected the layout of COCO or LVIS")
    return data | {"annotations": spool.finish()}


def kept(records: Records, keep: Callable[[dict], bool]) -> Records:
    """Those records of which it is true; on the disk where they were."""
    return records.kept(keep) if isinstance(records, Spooled) else [it for it in records if keep(it)]


def without_masks(records: Records) -> Records:
    """All records; where they lie on the disk, without reading their masks."""
    return records.without_masks() if isinstance(records, Spooled) else records


def changed(records: Records, change: Callable[[dict], dict]) -> Records:
    """All records, changed one by one; on the disk where they were."""
    return records.changed(change) if isinstance(records, Spooled) else [change(it) for it in records]
