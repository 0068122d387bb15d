"""Finished shards, and the synthetic set that is made of them.

A shard is `<k>.zip`, all generated images, and `<k>.arrow`, the table of their labels: a COCO dictionary in
columns (`data.label_tables`) with two more keys: "rejected", what was generated but not labelled, and "info",
the run and the archive it belongs to. A synthetic set says which labels of the shards of a run are offered
(`data.label_sets`).
"""

import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.provenance import content_hash_of_list
from gen4det.data.images import ImageStore, image_name
from gen4det.data.label_sets import LabelSet, dictionaries, open_set
from gen4det.data.label_tables import LabelTable
from gen4det.data.zip_members import ZipDirectory


def archive_digest(path: str | Path) -> str:
    """Hash of names, sizes and checksums of a zip's members, read from its directory alone.

    Raises:
        InputError: missing, or cut short: the directory stands at the end of the file.
    """
    try:
        return content_hash_of_list(ZipDirectory(path).contents())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the shard's images are missing") from error
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{path}: cut short, or not a zip: {error}") from error


def open_shard(path: str | Path) -> LabelTable:
    """Labels of a finished shard as a table, after a check that they belong to the zip they name.

    Raises:
        InputError: a file is missing or cut short, or table and zip do not belong together.
    """
    path = Path(path)
    table = LabelTable.open(path)
    info = table.about.get("info")
    if not isinstance(info, dict) or not {"shard", "shards", "run", "archive", "digest"} <= set(info):
        raise InputError(f"{path}: not the labels of a shard: no info of run and archive")
    archive = Path(os.path.normpath(path.parent / info["archive"]))
    if archive_digest(archive) != info["digest"]:
        raise InputError(
            f"{archive}: does not hold the images that {path.name} describes; draw the shard again"
        )
    return table


def load_shard(path: str | Path) -> dict:
    """The same as one dictionary in memory, in COCO's layout; for whoever looks at a shard at a time."""
    return open_shard(path).as_coco()


def open_run(paths: list[str | Path]) -> list[LabelTable]:
    """All shards of one run, ordered.

    Raises:
        InputError: a shard is unusable, missing, given twice, or of another run.
    """
    tables = sorted(map(open_shard, paths), key=lambda table: table.about["info"]["shard"])
    first = tables[0]
    for table in tables:
        for key in ("run", "shards"):
            if table.about["info"][key] != first.about["info"][key]:
                raise InputError(f"{table.path}: not of the same run as {first.path}: another {key}")
        if table.path.parent != first.path.parent:
            raise InputError(f"{table.path}: shards of one run lie in one folder, like {first.path}")
    numbers = [table.about["info"]["shard"] for table in tables]
    expected = first.about["info"]["shards"]
    if numbers != list(range(expected)):
        missing = sorted(set(range(expected)) - set(numbers))
        what = f"shard {missing[0]} of {expected} is missing" if missing else "a shard is given twice"
        raise InputError(f"{first.path.parent}: {what}")
    return tables


def load_run(paths: list[str | Path]) -> list[dict]:
    """The same as dictionaries in memory."""
    return [table.as_coco() for table in open_run(paths)]


def shard_identity(shard: dict) -> dict:
    """What names the images of a shard; stored with what is measured of them.

    Returns:
        {"run", "shard", "shards", "digest"}, of the "info" of the shard's dictionary; of labels made
        afterwards, those of the shard that was drawn.
    """
    drawn = shard["info"].get("drawn", shard["info"])
    return {key: drawn[key] for key in ("run", "shard", "shards", "digest")}


def image_folder(path: str | Path, shard: dict) -> Path:
    """Folder of the archive of a shard; labels that were made afterwards lie elsewhere than the images.

    Args:
        path: of the label file.
        shard: what `load_shard` read there.
    """
    return Path(os.path.normpath(Path(path).parent / shard["info"]["archive"])).parent


# --- arrays beside the images -------------------------------------------------------------------------


def array_name(index: int, name: str) -> str:
    """Member of a shard's archive that holds an array of an image; `index` is that of its manifest row."""
    return f"arrays/{index:012d}.{name}.npy"


def encode_array(array: np.ndarray) -> bytes:
    """The array as an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def read_array(images: ImageStore, archive: str, index: int, name: str) -> np.ndarray:
    """An array that the draw step stored with an image.

    Args:
        archive: name of the shard's archive in the store.

    Raises:
        InputError: the shard holds no such array.
    """
    member = f"{archive}/{array_name(index, name)}"
    if not images.exists(member):
        raise InputError(f"{images.root / member}: no such array; draw the shard again with this engine")
    return np.load(io.BytesIO(images.read(member)), allow_pickle=False)


def relative_images(annotations: str | Path, folder: str | Path) -> str:
    """Path of the folder of shards relative to that of the annotation file, for "info" of a synthetic set."""
    return Path(os.path.relpath(Path(folder).resolve(), Path(annotations).resolve().parent)).as_posix()


def open_synthetic(path: str | Path) -> tuple[LabelSet, ImageStore]:
    """A synthetic set with its labels mapped into memory, and its images.

    Raises:
        RefusedInput: nothing was kept of what was drawn.
        InputError: not a synthetic set, or a shard of it is gone, cut short or another one.
    """
    labels = open_set(path)
    images = ImageStore(labels.source.parent / labels.info["images"])
    if not labels.by_id:  # a plain file, which knows no sizes of archives
        _look_for(labels.images(), images, path)
    return labels, images


def load_synthetic(path: str | Path) -> tuple[dict, ImageStore]:
    """A synthetic set in COCO's layout, all of it in memory, and its images; every one is looked for.

    Raises:
        RefusedInput: nothing was kept of what was drawn.
        InputError: not a synthetic set, or a shard or an image of it is gone or cut short.
    """
    labels, images = open_synthetic(path)
    data, _ = dictionaries(labels)
    _look_for(data["images"], images, path)
    return data, images


def _look_for(records: Iterable[dict], images: ImageStore, path: str | Path) -> None:
    for name in sorted(map(image_name, records)):  # shard by shard
        if not images.exists(name):
            raise InputError(f"{images.root / name}: no such image, but {path} names it")
