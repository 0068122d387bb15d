"""Labels as columns: an Arrow file with a row per image, read without being parsed or copied into memory.

COCO and LVIS dictionaries remain the records, see `as_coco`; the table holds the same in columns. Files are
in Arrow's IPC format without compression, so that they are mapped into memory: an image is found by its row,
a column of all labels is an array, and all processes of a machine share the pages. They are written in
batches of whole images; equal records give equal bytes.

What a column cannot hold exactly as it was, and every further key, is JSON text in "more". Numbers of "bbox",
"area" and "score" become floats, flags 0 or 1.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write
from gen4det.data.annotations import index_annotations
from gen4det.data.spool import Spooled

LABELS_PER_BATCH = 16_384
"""A batch ends with the image that fills it; readers look at one batch at a time."""
_LABEL = pa.struct([
    ("id", pa.int64()),
    ("category_id", pa.int64()),
    ("bbox", pa.list_(pa.float64(), 4)),  # [x, y, width, height] in pixels
    ("area", pa.float64()),  # square pixels
    ("iscrowd", pa.int8()),
    ("ignore", pa.int8()),
    ("real", pa.int8()),
    ("score", pa.float64()),
    ("labeller", pa.string()),
    ("reason", pa.string()),  # of what an engine itself rejected
    ("counts", pa.binary()),  # run lengths, compressed as COCO's code does
    ("size", pa.list_(pa.int32(), 2)),  # [height, width] of the mask
    ("outline", pa.string()),  # any other form of a mask, as JSON: rounding would move its corners
    ("more", pa.string()),
])  # fmt: skip
_IMAGE = {
    "id": pa.int64(),
    "file_name": pa.string(),
    "coco_url": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "more": pa.string(),
}
_COLUMNS = {**_IMAGE, "labels": pa.list_(_LABEL)}
_KEY = b"gen4det"
_FLAGS = frozenset({"iscrowd", "ignore", "real"})
_WHOLE = frozenset({"id", "category_id", "width", "height"})
_NUMBERS = frozenset({"area", "score"})
_TEXTS = frozenset({"file_name", "coco_url", "labeller", "reason"})
_LABEL_KEYS = [field.name for field in _LABEL if field.name not in ("counts", "size", "outline", "more")]
_IMAGE_KEYS = [name for name in _IMAGE if name != "more"]


# --- writing --------------------------------------------------------------------------------------


class LabelTableWriter:
    """Writes a table image by image; it appears under its name when the block ends without an exception.

    Args:
        path: of the table.
        about: everything of the dictionary but its images and labels: "info", "categories".

    Raises:
        InputError: the disk is full; nothing is left behind.
    """

    def __init__(self, path: str | Path, about: dict):
        self.path = Path(path)
        self._schema = _schema(about)
        self._rows: list[tuple[dict, list[dict]]] = []
        self._labels = 0

    def __enter__(self) -> "LabelTableWriter":
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_write(self.path))
            sink = stack.enter_context(pa.OSFile(str(temporary), "wb"))
            self._writer = stack.enter_context(pa.ipc.new_file(sink, self._schema))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, value, traceback) -> bool | None:
        if kind is None:
            self._flush()
        return self._stack.__exit__(kind, value, traceback)

    def add(self, image: dict, labels: list[dict]) -> None:
        """Append an image.

        Args:
            labels: its annotations and its rejected labels, which have a "reason", each kind in its order.
        """
        self._rows.append((image, labels))
        self._labels += max(1, len(labels))
        if self._labels >= LABELS_PER_BATCH:
            self._flush()

    def add_all(self, data: dict) -> None:
        """Append all images of a dictionary, with its "annotations" and its "rejected" labels."""
        for image, labels in _by_image(data):
            self.add(image, labels)

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(_batch(self._rows, self._schema))
        self._rows, self._labels = [], 0


def write_table(path: str | Path, data: dict) -> None:
    """A COCO or LVIS dictionary as a table, "rejected" labels included."""
    with LabelTableWriter(path, _about(data)) as writer:
        writer.add_all(data)


def _about(data: dict) -> dict:
    return {key: value for key, value in data.items() if key not in ("images", "annotations", "rejected")}


def _by_image(data: dict) -> Iterator[tuple[dict, list[dict]]]:
    labels = data["annotations"]
    annotations = labels.by_image() if isinstance(labels, Spooled) else index_annotations(data)
    rejected = index_annotations({"images": data["images"], "annotations": data.get("rejected", [])})
    return ((image, annotations[image["id"]] + rejected[image["id"]]) for image in data["images"])


def _schema(about: dict) -> pa.Schema:
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return pa.schema(list(_COLUMNS.items()), metadata={_KEY: text.encode()})


def _batch(rows: list[tuple[dict, list[dict]]], schema: pa.Schema) -> pa.RecordBatch:
    images, starts, labels = {name: [] for name in _IMAGE}, [0], {field.name: [] for field in _LABEL}
    for image, of_image in rows:
        _append(images, image, _IMAGE_KEYS)
        for label in of_image:
            rest = {key: value for key, value in label.items() if key != "image_id"}
            counts = size = outline = None
            if shape := rest.pop("segmentation", None):
                counts, size = _run_lengths(shape)
                outline = json.dumps(shape, separators=(",", ":")) if counts is None else None
            elif "segmentation" in label:
                rest["segmentation"] = shape
            for key, value in (("counts", counts), ("size", size), ("outline", outline)):
                labels[key].append(value)
            _append(labels, rest, _LABEL_KEYS)
        starts.append(starts[-1] + len(of_image))
    fields = [pa.array(labels[field.name], type=field.type) for field in _LABEL]
    struct = pa.StructArray.from_arrays(fields, fields=list(_LABEL))
    columns = [pa.array(images[name], type=kind) for name, kind in _IMAGE.items()]
    columns.append(pa.ListArray.from_arrays(pa.array(starts, pa.int32()), struct, type=_COLUMNS["labels"]))
    return pa.record_batch(columns, schema=schema)


def _append(columns: dict[str, list], record: dict, keys: list[str]) -> None:
    rest = dict(record)
    for key in keys:
        value = rest.get(key)
        if value is not None and (value := _exact(key, value)) is not None:
            del rest[key]
        columns[key].append(value)
    columns["more"].append(json.dumps(rest, sort_keys=True, separators=(",", ":")) if rest else None)


def _exact(key: str, value: object) -> object | None:
    """The value as its column holds it; None: it cannot."""
    kind = type(value)
    if key in _WHOLE:
        return value if kind is int and abs(value) < 2**63 else None
    if key in _FLAGS:
        return int(value) if kind in (int, bool) and value in (0, 1) else None
    if key in _NUMBERS:
        return float(value) if kind in (int, float) else None
    if key in _TEXTS:
        return value if kind is str else None
    if len(value) == 4 and all(type(number) in (int, float) for number in value):  # bbox
        return [float(number) for number in value]
    return None


def _run_lengths(shape: object) -> tuple[bytes | None, list[int] | None]:
    if isinstance(shape, dict) and shape.keys() == {"counts", "size"} and isinstance(shape["counts"], str):
        return shape["counts"].encode("ascii"), list(shape["size"])
    return None, None


# --- reading --------------------------------------------------------------------------------------


class LabelTable:
    """A table, mapped into memory or made in it.

    Args:
        batches: all of one schema, each of whole images.
        about: everything of the dictionary but its images and labels: "info", "categories".
        path: of the file; None: the batches lie in memory.

    Attributes:
        starts: (batches + 1,) int64, number of the first image of each batch.
    """

    def __init__(self, batches: list[pa.RecordBatch], about: dict, path: Path | None = None):
        self.batches, self.about, self.path = batches, about, path
        self.starts = np.cumsum([0] + [batch.num_rows for batch in batches])

    @classmethod
    def open(cls, path: str | Path) -> "LabelTable":
        """Map a file.

        Raises:
            InputError: missing, cut short, or no table of labels.
        """
        with _naming(path):
            reader = pa.ipc.open_file(pa.memory_map(str(path)), options=_ONE_THREAD)
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            return cls(batches, _about_of(reader), Path(path))

    @classmethod
    def of(cls, data: dict) -> "LabelTable":
        """The table of a dictionary, in memory."""
        about = _about(data)
        schema, rows, batches, labels = _schema(about), [], [], 0
        for row in _by_image(data):
            rows.append(row)
            labels += max(1, len(row[1]))
            if labels >= LABELS_PER_BATCH:
                batches.append(_batch(rows, schema))
                rows, labels = [], 0
        return cls([*batches, *([_batch(rows, schema)] if rows else [])], about)

    @property
    def is_shard(self) -> bool:
        """Whether labels with a "reason" are ones that an engine rejected."""
        return "shard" in (self.about.get("info") or {})

    def __len__(self) -> int:
        """Number of images."""
        return int(self.starts[-1])

    def stream(self) -> Iterator[pa.RecordBatch]:
        """The batches one after the other, each read into memory for as long as it is held: however large
        the file is, reading all of it takes no more."""
        if self.path is None:
            yield from self.batches
            return
        with _naming(self.path), pa.OSFile(str(self.path)) as file:
            reader = pa.ipc.open_file(file, options=_ONE_THREAD)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def record(self, row: int) -> tuple[dict, list[dict]]:
        """An image by its row, and all its labels; those that an engine rejected have a "reason"."""
        batch = int(np.searchsorted(self.starts, row, side="right")) - 1
        return next(records_of(self.batches[batch].slice(row - int(self.starts[batch]), 1)))

    def as_coco(self) -> dict:
        """The dictionary, with "rejected" where it is the table of a shard. Labels are ordered by image."""
        images, annotations, rejected = [], [], []
        for batch in self.batches:
            for image, labels in records_of(batch):
                images.append(image)
                for label in labels:
                    (rejected if self.is_shard and "reason" in label else annotations).append(label)
        data = self.about | {"images": images, "annotations": annotations}
        return data | {"rejected": rejected} if self.is_shard else data


_ONE_THREAD = pa.ipc.IpcReadOptions(use_threads=False)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a table of labels") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cut short, or no table of labels: {error}") from error


def _about_of(reader: pa.ipc.RecordBatchFileReader) -> dict:
    about = (reader.schema.metadata or {}).get(_KEY)
    if about is None or reader.schema.names != list(_COLUMNS):
        raise pa.ArrowInvalid("another schema; make it again")
    return json.loads(about)


def as_coco(path: str | Path) -> dict:
    """The labels of a table in COCO's or LVIS's layout, all of them in memory.

    Raises:
        InputError: missing, cut short, or no table of labels.
    """
    return LabelTable.open(path).as_coco()


def records_of(batch: pa.RecordBatch) -> Iterator[tuple[dict, list[dict]]]:
    """(image, its labels) of a batch, as the dictionaries they were made of; none where the batch has no
    labels."""
    for row in batch.to_pylist():
        labels = row.pop("labels", [])
        image = _restored(row)
        yield image, [_label(label) | {"image_id": image["id"]} for label in labels]


def _restored(record: dict) -> dict:
    more = record.pop("more")
    restored = {key: value for key, value in record.items() if value is not None}
    return restored if more is None else restored | json.loads(more)


def _label(record: dict) -> dict:
    counts, size, outline = (record.pop(key) for key in ("counts", "size", "outline"))
    real = record["real"]
    if real is not None:
        record["real"] = bool(real)
    label = _restored(record)
    if counts is not None:
        label["segmentation"] = {"counts": counts.decode("ascii"), "size": size}
    elif outline is not None:
        label["segmentation"] = json.loads(outline)
    return label
