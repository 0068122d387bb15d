"""What `rate`, `calibrate` and `detect` measured, checked against the shards and the training split.

Files are read one at a time: the detections of a full-scale run do not fit into memory. Their key
"split" is the hash of the training split that the measurement belongs to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.data.shards import shard_identity
from gen4det.filters.agreement import disagreements
from gen4det.filters.settings import AestheticSettings, AgreementSettings


@dataclass(frozen=True)
class Measurements:
    """What is known of generated images and labels beside the labels; empty where the filter is off."""

    scores: dict[int, float] = field(default_factory=dict)
    """Image id -> aesthetic score."""
    threshold: float | None = None
    """Least aesthetic score of an image that is kept."""
    disagreements: dict[int, str] = field(default_factory=dict)
    """Annotation id -> why a detector of real objects does not confirm it."""


def read_scores(paths: list[str | Path], shards: list[dict]) -> tuple[dict[int, float], str]:
    """Aesthetic scores of all images, and the hash of the models that gave them.

    Args:
        paths: files of `rate`, one per shard.
        shards: as `data.shards.load_run` gives them.

    Raises:
        InputError: a file is missing, malformed, of other images, or of other models than the first.
    """
    scores: dict[int, float] = {}
    models = None
    for _, path, data in _with_shards(paths, shards, "aesthetic scores", ("models", "scores")):
        models = models or data["models"]
        if data["models"] != models:
            raise InputError(f"{path}: scores of other models than the shards before; rate again")
        scores |= {int(image): score for image, score in data["scores"].items()}
    return scores, models


def read_threshold(
    path: str | Path | None, settings: AestheticSettings, *, training_hash: str, models: str
) -> float:
    """Least score of an image that is kept.

    Args:
        path: file of `calibrate`; needed where the threshold is "real-mean".
        training_hash: hash of the training split.
        models: hash of the models that rated the images.

    Raises:
        InputError: it was calibrated on another split, or with other models.
    """
    if settings.threshold != "real-mean":
        return settings.threshold
    if path is None:
        raise InputError("filter.aesthetic.threshold: real-mean needs --calibration, what `calibrate` wrote")
    data = _read(path, "the aesthetic threshold", ("split", "models", "mean"))
    if data["split"] != training_hash:
        raise InputError(f"{path}: aesthetic threshold of another training split; calibrate again")
    if data["models"] != models:
        raise InputError(f"{path}: aesthetic threshold of other models than rated the images")
    return float(data["mean"])


def read_disagreements(
    paths: list[str | Path], shards: list[dict], settings: AgreementSettings, *, training_hash: str
) -> dict[int, str]:
    """Annotation id -> why the detector does not confirm it, of all labels.

    Args:
        paths: files of `detect`, one per shard.
        training_hash: hash of the training split.

    Raises:
        InputError: a file is missing, malformed, of other images, by a detector that was trained on another
            split, by another one than the first, or with fewer detections per image than the settings ask.
    """
    keys = ("split", "detector", "max_per_image", "detections")
    found: dict[int, str] = {}
    detector = None
    for shard, path, data in _with_shards(paths, shards, "detections", keys):
        detector = detector or data["detector"]
        if data["split"] != training_hash:
            raise InputError(f"{path}: by a detector that was trained on another training split")
        if data["detector"] != detector:
            raise InputError(f"{path}: by another detector than the shards before; detect again")
        if data["max_per_image"] < settings.max_per_image:
            raise InputError(
                f"{path}: {data['max_per_image']} detections per image at most, "
                f"filter.agreement.max_per_image asks for {settings.max_per_image}"
            )
        found |= disagreements(shard["annotations"], data["detections"], settings)
    return found


def _with_shards(
    paths: list[str | Path], shards: list[dict], what: str, keys: tuple[str, ...]
) -> Iterator[tuple[dict, str | Path, dict]]:
    """(shard, path, contents) of each file; raises if a file is not of a shard, or a shard has no file."""
    if len(paths) != len(shards):
        raise InputError(f"filter: {len(shards)} shards, but {len(paths)} files of {what}")
    left = {shard["info"]["shard"]: shard for shard in shards}
    for path in paths:
        data = _read(path, what, ("of", *keys))
        number = data["of"].get("shard")
        if number not in left and number in range(len(shards)):
            raise InputError(f"{path}: {what} of shard {number} are given twice")
        if number not in left or data["of"] != shard_identity(left[number]):
            raise InputError(f"{path}: {what} of other images than the shards hold; measure again")
        yield left.pop(number), path, data


def _read(path: str | Path, what: str, keys: tuple[str, ...]) -> dict:
    data = read_json(path, what)
    if not set(keys) <= data.keys():
        raise InputError(f"{path}: not {what}; expected the keys {', '.join(keys)}")
    return data
