"""Columns of labels as arrays of NumPy, one entry per label: what filters and trainings compute with.

Arrow's own `to_numpy`, and whatever takes values from Python, imports pandas where it is installed: 40 MB and
half a second in each process. Nothing here does.
"""

import numpy as np
import pyarrow as pa


class Columns:
    """Columns of the labels of one batch as arrays, one entry per label, without a copy where Arrow allows.

    Attributes:
        count: number of labels.
        image: (count,) int64, place of each label's image in the batch.
        starts: (images + 1,) where the labels of each image begin.
    """

    def __init__(self, batch: pa.RecordBatch):
        self.batch = batch
        lists = batch.column("labels")
        self.starts = array_of(lists.offsets)
        first, last = int(self.starts[0]), int(self.starts[-1])
        self.starts = self.starts - first
        self._labels = lists.values.slice(first, last - first)
        self.count = last - first
        self.image = np.repeat(np.arange(batch.num_rows), np.diff(self.starts))

    def of_image(self, name: str) -> np.ndarray:
        """A column of the images without gaps, (images,)."""
        return array_of(self.batch.column(name))

    def field(self, name: str) -> pa.Array:
        """A column of the labels as Arrow has it."""
        return self._labels.field(name)

    def known(self, name: str) -> np.ndarray:
        """Which labels have it, (count,) bool."""
        return known(self.field(name))

    def whole(self, name: str, default: int = 0) -> np.ndarray:
        """A column of whole numbers or flags, (count,); `default` where there is none."""
        return array_of(self.field(name), default)

    def numbers(self, name: str) -> np.ndarray:
        """A column of floats, (count,) float64; NaN where there is none."""
        return array_of(self.field(name), np.nan)

    def boxes(self) -> np.ndarray:
        """[x, y, width, height], (count, 4) float64; NaN where there is none."""
        return four(self.field("bbox"))

    def mask_sizes(self) -> np.ndarray:
        """[height, width] of the masks, (count, 2) int32; 0 where there is none."""
        return lists_of(self.field("size"), 2, 0)

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A column of texts as (count,) numbers into the list of its different values; -1 where there is
        none."""
        column = self.field(name)
        if column.null_count == self.count:
            return np.full(self.count, -1, dtype=np.int32), []
        encoded = column.dictionary_encode()
        return array_of(encoded.indices, -1), encoded.dictionary.to_pylist()


def four(column: pa.FixedSizeListArray) -> np.ndarray:
    """A column of four floats, (rows, 4) float64; NaN where there are none."""
    return lists_of(column, 4, np.nan)


def lists_of(column: pa.FixedSizeListArray, size: int, default: float) -> np.ndarray:
    """A column of lists of `size` numbers, (rows, size); `default` where there are none."""
    values = array_of(column.values.slice(size * column.offset, size * len(column)), default)
    values = values.reshape(-1, size)
    if column.null_count == 0:
        return values
    return np.where(known(column)[:, None], values, values.dtype.type(default))


def known(column: pa.Array) -> np.ndarray:
    """Where a column has values, (rows,) bool."""
    if column.null_count == 0:
        return np.ones(len(column), dtype=bool)
    return np.from_dlpack(column.is_valid().cast(pa.uint8())).astype(bool)


def array_of(column: pa.Array, default: float = 0) -> np.ndarray:
    """A column of numbers, (rows,) of its type, without a copy where it has no gaps; `default` fills them."""
    if column.null_count == 0:
        return np.from_dlpack(column)
    kind = np.dtype(column.type.to_pandas_dtype())
    stored = np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)
    return np.where(known(column), stored, kind.type(default))


def as_arrow(array: np.ndarray) -> pa.Array:
    """Numbers as a column without gaps, without a copy."""
    array = np.ascontiguousarray(array)
    kind = pa.from_numpy_dtype(array.dtype)
    return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(array)])
