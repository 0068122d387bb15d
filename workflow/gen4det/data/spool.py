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
        file: where they lie one behind the other.
        starts: (all + 1,) where records begin in it.
        rows: (N,) numbers of those that count, ascending.
        changes: applied to a record one after the other; they return another one.
    """

    def __init__(self, file, starts: np.ndarray, rows: np.ndarray, changes: tuple[Callable, ...] = ()):
        self._file, self._starts, self._rows, self._changes = file, starts, rows, changes

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
        starts, stops = self._starts[rows].tolist(), self._starts[rows + 1].tolist()
        block = memoryview(os.pread(self._file.fileno(), stops[-1] - starts[0], starts[0]))
        for start, stop in zip(starts, stops, strict=True):
            record = marshal.loads(block[start - starts[0] : stop - starts[0]])
            for change in self._changes:
                record = change(record)
            yield record

    def kept(self, keep: Callable[[dict], bool]) -> "Spooled":
        """Those of which it is true."""
        mask = np.fromiter(map(keep, self), dtype=bool, count=len(self))
        return Spooled(self._file, self._starts, self._rows[mask], self._changes)

    def changed(self, change: Callable[[dict], dict]) -> "Spooled":
        """The same, changed one by one."""
        return Spooled(self._file, self._starts, self._rows, (*self._changes, change))

    def by_image(self) -> "ByImage":
        """The same, found by their images."""
        return ByImage(self)


class ByImage:
    """Records of an image by its id, in their order."""

    def __init__(self, records: Spooled):
        self._records = records
        images = np.fromiter((it["image_id"] for it in records), dtype=np.int64, count=len(records))
        self._order = np.argsort(images, kind="stable")
        self._images = images[self._order]

    def __getitem__(self, image: int) -> list[dict]:
        low, high = np.searchsorted(self._images, [image, image + 1])
        return [self._records[place] for place in self._order[low:high].tolist()]


class _Writer:
    def __init__(self, folder: str | Path):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._folder, self._starts = folder, array("q", [0])
        self._file = tempfile.TemporaryFile(dir=folder)  # it goes with the last reference to it

    def add(self, record: object) -> None:
        content = marshal.dumps(record)
        with self._naming():
            self._file.write(content)
        self._starts.append(self._starts[-1] + len(content))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._folder}: {error.strerror}; make room and run it again") from error

    def finish(self) -> Spooled:
        with self._naming():
            self._file.flush()
        return Spooled(self._file, np.array(self._starts), np.arange(len(self._starts) - 1))


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


def changed(records: Records, change: Callable[[dict], dict]) -> Records:
    """All records, changed one by one; on the disk where they were."""
    return records.changed(change) if isinstance(records, Spooled) else [change(it) for it in records]
