"""The dataset descriptor `dataset.json`: the one thing that every later stage receives."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import content_hash, file_hash, write_json
from gen4det.core.settings import Settings, parse_settings
from gen4det.data.annotations import frequency_groups, load_annotations, write_annotations
from gen4det.data.captions import read_captions
from gen4det.data.images import ImageStore

if TYPE_CHECKING:
    from gen4det.data.label_sets import LabelSet

Format = Literal["lvis", "coco"]


class SplitDescriptor(Settings):
    """Where one split lies; paths relative to the folder of the descriptor, or absolute."""

    annotations: str
    images: str
    """Folder or stored zip."""
    images_sha256: str | None = None
    """Hash over names and contents of the images, where they do not lie in a zip beside the descriptor."""
    white: int | None = None
    """Value that is white in images of 16 bits per channel; null: such images are refused."""
    captions: str | None = None
    """Captions of its images, in COCO's layout; null: there are none."""
    table: str | None = None
    """The same annotations in columns (`data.label_tables`), for whoever reads them more than once; null: no
    table was made, as of a descriptor of the user's own."""
    annotations_sha256: str | None = None
    annotations_bytes: int | None = None
    """Hash and size of the annotations when the table was made, so that no job hashes gigabytes of them
    again."""


class DatasetDescriptor(Settings):
    """Contents of dataset.json."""

    name: str
    format: Format
    train: SplitDescriptor
    val: SplitDescriptor | None = None
    """Null: names alone, without any image."""
    categories: list[dict] | None = None
    """Those of the training split as its annotations have them, for whoever reads nothing else of a file of
    gigabytes. Every stage that makes a data set writes them; a descriptor of the user's own may lack them."""


@dataclass(frozen=True)
class Split:
    """One split of a dataset; cheap to pass around, nothing is loaded before it is asked for."""

    annotations_path: Path
    images_path: Path
    images_sha256: str | None = None
    white: int | None = None
    """See `ImageStore`."""
    captions_path: Path | None = None
    table_path: Path | None = None
    """Its annotations in columns, see `labels`."""
    annotations_sha256: str | None = None
    """Hash of the annotations as they were registered."""

    @cached_property
    def images(self) -> ImageStore:
        """The split's images. Raises InputError if they are not there."""
        return ImageStore(self.images_path, white=self.white)

    def load(self) -> dict:
        """The annotation dictionary, read anew on each call. Raises InputError if unreadable."""
        return load_annotations(self.annotations_path)

    def labels(self) -> "LabelSet":
        """The annotations in columns: mapped into memory where they were registered so, else made of the
        file.

        Raises:
            InputError: unreadable.
        """
        from gen4det.data.label_sets import LabelSet
        from gen4det.data.label_tables import LabelTable

        if self.table_path is None:
            return LabelSet.of(self.load(), self.annotations_path)
        table = LabelTable.open(self.table_path)
        return LabelSet(self.annotations_path, [table], table.about)

    def captions(self) -> dict[int, list[str]]:
        """Captions by image id, read anew on each call; empty for a data set without any.

        Raises:
            InputError: not a file of captions in COCO's layout.
        """
        return {} if self.captions_path is None else read_captions(self.captions_path)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over annotations, captions and images; of annotations that have a table, and of images
        elsewhere, the hash taken at registration.

        An archive of the user's own may be large, and every job asks: it is not read again.
        """
        images = self.images_sha256
        if images is None and self.images_path.is_file():
            images = file_hash(self.images_path)
        more = [] if self.white is None else [self.white]
        more += [] if self.captions_path is None else [file_hash(self.captions_path)]
        annotations = self.annotations_sha256 or file_hash(self.annotations_path)
        return content_hash([annotations, images, *more])


@dataclass(frozen=True)
class Dataset:
    """A training and a validation split over the same categories."""

    name: str
    format: Format
    """Which evaluation protocol the annotations follow."""
    train: Split
    val: Split | None
    """None: names alone, without any image."""
    path: Path
    """The descriptor."""
    declared: list[dict] | None = None
    """Categories in the descriptor, if it has them."""

    @property
    def validation(self) -> Split:
        """The validation split.

        Raises:
            InputError: there is none, for names alone.
        """
        if self.val is None:
            raise InputError(f"{self.path}: names alone; a table needs real validation images")
        return self.val

    @cached_property
    def categories(self) -> list[dict]:
        """Categories of the training split, from the descriptor where it has them, else from the annotations.

        Raises:
            InputError: unreadable annotations.
        """
        return self.train.load()["categories"] if self.declared is None else self.declared

    @cached_property
    def frequency_groups(self) -> dict[int, str]:
        """Category id -> "r", "c" or "f" of the training split, counted only where the categories do not say.

        Raises:
            InputError: unreadable annotations.
        """
        known = {"images": [], "annotations": [], "categories": self.categories}
        if all(category.get("frequency") in ("r", "c", "f") for category in self.categories):
            return frequency_groups(known)
        return self.train.labels().counted_groups()


def load_dataset(path: str | Path) -> Dataset:
    """Read a descriptor.

    Raises:
        InputError: the descriptor, or a file it names, is missing or malformed.
    """
    path = Path(path)
    descriptor = parse_settings(DatasetDescriptor, read_json(path, "a dataset.json"), source=path)
    splits: dict[str, Split | None] = {"val": None}
    for name in ("train", "val"):
        split = getattr(descriptor, name)
        if split is None:
            continue
        annotations, images = path.parent / split.annotations, path.parent / split.images
        captions = path.parent / split.captions if split.captions else None
        for file in (annotations, images, *([captions] if captions else [])):
            if not file.exists():
                raise InputError(f"{path}: {name}: no such file or folder: {file}")
        table = path.parent / split.table if split.table else None
        if table is not None:
            _check_table(path, annotations, table, split.annotations_bytes)
        splits[name] = Split(
            annotations, images, split.images_sha256, split.white, captions, table, split.annotations_sha256
        )
    return Dataset(descriptor.name, descriptor.format, path=path, declared=descriptor.categories, **splits)


def _check_table(path: Path, annotations: Path, table: Path, size: int | None) -> None:
    if not table.is_file():
        raise InputError(f"{path}: train: no such file: {table}")
    if annotations.stat().st_size != size:
        raise InputError(
            f"{annotations}: changed since {path} was made, with a table of it; make the data set again"
        )


def write_split(folder: Path, split: str, data: dict) -> dict[str, str | int]:
    """Write the annotations of a split, <split>.json; of the training split also the same in columns,
    train.arrow.

    Returns:
        What the split's descriptor says of them.

    Raises:
        InputError: the disk is full.
    """
    from gen4det.data.label_tables import write_table

    annotations = folder / f"{split}.json"
    write_annotations(annotations, data)
    if split != "train":
        return {"annotations": annotations.name}
    write_table(folder / "train.arrow", data)
    return {
        "annotations": annotations.name,
        "table": "train.arrow",
        "annotations_sha256": file_hash(annotations),
        "annotations_bytes": annotations.stat().st_size,
    }


def write_dataset(path: str | Path, descriptor: DatasetDescriptor) -> None:
    """Write a descriptor atomically; to be called last, after the files it names."""
    write_json(path, descriptor.model_dump(exclude_none=True), indent=1)
