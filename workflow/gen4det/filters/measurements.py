"""What `rate`, `calibrate` and `detect` measured, held against the shards and the split."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from gen4det.data.shards import shard_identity
from gen4det.errors import InputError
from gen4det.filters.settings import AestheticSettings, AgreementSettings


@dataclass(frozen=True)
class Measurements:
    """What is known of generated images beside their labels; empty where the filter is off."""

    scores: dict[int, float] = field(default_factory=dict)
    """Image id -> aesthetic score."""
    threshold: float | None = None
    """Least aesthetic score of an image that is kept."""
    detections: dict[int, list[dict]] = field(default_factory=dict)
    """Image id -> what a detector of real objects finds in it."""


def read_scores(paths: list[str | Path], shards: list[dict]) -> tuple[dict[int, float], str]:
    """Aesthetic scores of all images, and the hash of the models that gave them.

    Args:
        paths: files of `rate`, one per shard.
        shards: as `data.shards.load_run` gives them.

    Raises:
        InputError: a file is missing, malformed, of other images, or of other models than the first.
    """
    files = _one_per_shard(paths, shards, "aesthetic scores", ("models", "scores"))
    scores = {int(image): score for _, data in files for image, score in data["scores"].items()}
    return scores, _common(files, "models")


def read_threshold(path: str | Path | None, settings: AestheticSettings, *, split: str, models: str) -> float:
    """Least score of an image that is kept.

    Args:
        path: file of `calibrate`; needed where the threshold is "real-mean".
        split: hash of the training split.
        models: hash of the models that rated the images.

    Raises:
        InputError: it was calibrated on another split, or with other models.
    """
    if settings.threshold != "real-mean":
        return settings.threshold
    if path is None:
        raise InputError("filter.aesthetic.threshold: real-mean needs --calibration, what `calibrate` wrote")
    data = _read(path, "the aesthetic threshold", ("split", "models", "mean"))
    if data["split"] != split:
        raise InputError(f"{path}: aesthetic threshold of another training split; calibrate again")
    if data["models"] != models:
        raise InputError(f"{path}: aesthetic threshold of other models than rated the images")
    return float(data["mean"])


def read_detections(
    paths: list[str | Path], shards: list[dict], settings: AgreementSettings, *, split: str
) -> dict[int, list[dict]]:
    """Detections by image.

    Args:
        paths: files of `detect`, one per shard.
        split: hash of the training split.

    Raises:
        InputError: a file is missing, malformed, of other images, by a detector that was trained on another
            split, by another one than the first, or with fewer detections per image than the settings ask.
    """
    keys = ("split", "detector", "max_per_image", "detections")
    files = _one_per_shard(paths, shards, "detections", keys)
    _common(files, "detector")
    found: dict[int, list[dict]] = defaultdict(list)
    for path, data in files:
        if data["split"] != split:
            raise InputError(f"{path}: by a detector that was trained on another training split")
        if data["max_per_image"] < settings.max_per_image:
            raise InputError(
                f"{path}: {data['max_per_image']} detections per image at most, "
                f"filter.agreement.max_per_image asks for {settings.max_per_image}"
            )
        for detection in data["detections"]:
            found[detection["image_id"]].append(detection)
    return dict(found)


def _one_per_shard(
    paths: list[str | Path], shards: list[dict], what: str, keys: tuple[str, ...]
) -> list[tuple[str | Path, dict]]:
    """Files in the order of their shards, each held against its shard."""
    if len(paths) != len(shards):
        raise InputError(f"filter: {len(shards)} shards, but {len(paths)} files of {what}")
    expected = {shard["info"]["shard"]: shard_identity(shard) for shard in shards}
    files = {}
    for path in paths:
        data = _read(path, what, ("of", *keys))
        number = data["of"].get("shard")
        if data["of"] != expected.get(number):
            raise InputError(f"{path}: {what} of other images than the shards hold; measure again")
        if number in files:
            raise InputError(f"{path}: {what} of shard {number} are given twice")
        files[number] = (path, data)
    return [files[number] for number in sorted(files)]


def _common(files: list[tuple[str | Path, dict]], key: str) -> str:
    first_path, first = files[0]
    for path, data in files:
        if data[key] != first[key]:
            raise InputError(f"{path}: other {key} than {first_path}; measure again")
    return first[key]


def _read(path: str | Path, what: str, keys: tuple[str, ...]) -> dict:
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected {what}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON, or cut short: {error}") from error
    if not isinstance(data, dict) or not set(keys) <= data.keys():
        raise InputError(f"{path}: not {what}; expected the keys {', '.join(keys)}")
    return data
