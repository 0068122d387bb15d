"""Detections between `predict` and `measure`: one compressed file for a detector and a data set.

A NumPy archive, read without pickle: a row per detection in `image_id`, `category_id`, `bbox` [x, y, w, h] in
pixels and `score`; of detectors with masks also `mask_size` [h, w], `mask_length`, and in `mask_codes` the
compressed run-length codes one behind the other. `about` is JSON: what was predicted. All values are exact:
what is measured of the file is what would be measured of the detections themselves.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, content_hash
from gen4det.data.images import image_name


@dataclass(frozen=True)
class Predictions:
    """What a detector found on the images of a data set."""

    detections: list[dict]
    """COCO results, in the order of the images, best first within an image; "category_id" of the data set."""
    about: dict
    """"images" (see `images_identity`), "max_per_image", "detector" (hash of the weights) and "categories"
    (ids of the data set's categories that the detector knows); or "refused", why there is no detector."""


def images_identity(records: list[dict]) -> str:
    """Hash of which images these are, in which order: ids, names and sizes, not what is annotated."""
    return content_hash([[r["id"], image_name(r), r["height"], r["width"]] for r in records])


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write atomically; equal predictions give equal bytes."""
    detections = predictions.detections
    about = json.dumps(predictions.about, sort_keys=True).encode()
    arrays = {
        "about": np.frombuffer(about, np.uint8),
        "image_id": np.array([d["image_id"] for d in detections], np.int64),
        "category_id": np.array([d["category_id"] for d in detections], np.int64),
        "bbox": np.array([d["bbox"] for d in detections], np.float64).reshape(-1, 4),
        "score": np.array([d["score"] for d in detections], np.float64),
    }
    masks = [d["segmentation"] for d in detections if "segmentation" in d]
    if masks:
        codes = [mask["counts"].encode("ascii") for mask in masks]
        arrays |= {
            "mask_size": np.array([mask["size"] for mask in masks], np.int32),
            "mask_length": np.array([len(code) for code in codes], np.int32),
            "mask_codes": np.frombuffer(b"".join(codes), np.uint8),
        }
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_predictions(path: str | Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        InputError: missing, cut short, or something else.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
        return Predictions(_detections(arrays), about)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected predictions") from error
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, AttributeError) as error:
        raise InputError(f"{path}: cut short, or not predictions: {error}; predict again") from error


def _detections(arrays: dict[str, np.ndarray]) -> list[dict]:
    columns = (arrays[name].tolist() for name in ("image_id", "category_id", "bbox", "score"))
    names = ("image_id", "category_id", "bbox", "score")
    detections = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if "mask_codes" in arrays:
        text = arrays["mask_codes"].tobytes().decode("ascii")
        ends = np.cumsum(arrays["mask_length"]).tolist()
        for detection, size, start, end in zip(
            detections, arrays["mask_size"].tolist(), [0, *ends[:-1]], ends, strict=True
        ):
            detection["segmentation"] = {"size": size, "counts": text[start:end]}
    return detections
