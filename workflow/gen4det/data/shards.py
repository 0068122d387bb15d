"""Finished shards, and the synthetic set that is made of them.

A shard is `<k>.zip`, all generated images, and `<k>.json`, a COCO dictionary of their labels with two more
keys: "rejected", what was generated but not labelled, and "info", the run and the archive it belongs to.
A synthetic set is one annotation file over the shards of a run; its "info" says where the shards lie.
"""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError, RefusedInput
from gen4det.core.provenance import content_hash
from gen4det.data.annotations import load_annotations
from gen4det.data.images import ImageStore, image_name


def archive_digest(path: str | Path) -> str:
    """Hash of names, sizes and checksums of a zip's members, read from its directory alone.

    Raises:
        InputError: missing, or cut short: the directory stands at the end of the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [[member.filename, member.file_size, member.CRC] for member in archive.infolist()]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the shard's images are missing") from error
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{path}: cut short, or not a zip: {error}") from error
    return content_hash(members)


def load_shard(path: str | Path) -> dict:
    """Labels of a finished shard, after a check that they belong to the zip beside them.

    Raises:
        InputError: a file is missing or cut short, or JSON and zip do not belong together.
    """
    path = Path(path)
    data = load_annotations(path)
    info = data.get("info")
    if not isinstance(info, dict) or not {"shard", "shards", "run", "archive", "digest"} <= set(info):
        raise InputError(f"{path}: not the labels of a shard: no info of run and archive")
    if not isinstance(data.get("rejected"), list):
        raise InputError(f"{path}: no list of rejected labels")
    archive = Path(os.path.normpath(path.parent / info["archive"]))
    if archive_digest(archive) != info["digest"]:
        raise InputError(
            f"{archive}: does not hold the images that {path.name} describes; draw the shard again"
        )
    return data


def load_run(paths: list[str | Path]) -> list[dict]:
    """All shards of one run, ordered.

    Raises:
        InputError: a shard is unusable, missing, given twice, or of another run.
    """
    loaded = [(Path(path), load_shard(path)) for path in paths]
    loaded.sort(key=lambda item: item[1]["info"]["shard"])
    first_path, first = loaded[0]
    for path, data in loaded:
        for key in ("run", "shards"):
            if data["info"][key] != first["info"][key]:
                raise InputError(f"{path}: not of the same run as {first_path}: another {key}")
        if path.parent != first_path.parent:
            raise InputError(f"{path}: shards of one run lie in one folder, like {first_path}")
    numbers = [data["info"]["shard"] for _, data in loaded]
    expected = first["info"]["shards"]
    if numbers != list(range(expected)):
        missing = sorted(set(range(expected)) - set(numbers))
        what = f"shard {missing[0]} of {expected} is missing" if missing else "a shard is given twice"
        raise InputError(f"{first_path.parent}: {what}")
    return [data for _, data in loaded]


def shard_identity(shard: dict) -> dict:
    """What names the images of a shard; stored with what is measured of them.

    Returns:
        {"run", "shard", "shards", "digest"}, of the shard's "info"; of labels made afterwards, those of the
        shard that was drawn.
    """
    return {
        key: shard["info"].get("drawn", shard["info"])[key] for key in ("run", "shard", "shards", "digest")
    }


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


def load_synthetic(path: str | Path) -> tuple[dict, ImageStore]:
    """Annotations and images of a synthetic set, after a check that the shards hold the images.

    Raises:
        RefusedInput: nothing was kept of what was drawn.
        InputError: not a synthetic set, or a shard or an image of it is gone or cut short.
    """
    path = Path(path)
    data = load_annotations(path)
    info = data.get("info") or {}
    if "refused" in info:
        raise RefusedInput(path, info["refused"])
    folder = info.get("images")
    if not isinstance(folder, str):
        raise InputError(f"{path}: not a synthetic set: info does not say where its images lie")
    images = ImageStore(path.parent / folder)
    for name in sorted(map(image_name, data["images"])):  # shard by shard
        if not images.exists(name):
            raise InputError(f"{images.root / name}: no such image, but {path} names it")
    return data, images


def dumps(value: object) -> bytes:
    """JSON with sorted keys and no blanks, as all files of labels are written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
