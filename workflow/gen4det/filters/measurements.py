"""What `rate`, `calibrate` and `detect` measured, checked against the shards and the training split.

Files are read shard by shard: the detections of a full-scale run do not fit into memory. Their key
"split" is the hash of the training split that the measurement belongs to.
"""

from dataclasses import dataclass, field
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.filters.settings import AestheticSettings, AgreementSettings, FilterSettings


@dataclass(frozen=True)
class Measurements:
    """What is known of generated images and labels beside the labels; empty where the filter is off."""

    scores: dict[int, float] = field(default_factory=dict)
    """Image id -> aesthetic score."""
    threshold: float | None = None
    """Least aesthetic score of an image that is kept."""
    detections: dict[str, list[list[float]]] = field(default_factory=dict)
    """What a detector of real objects finds: image id -> detections as `agreement.compact` gives them."""


class ScoreFiles:
    """Aesthetic scores of all images, shard by shard.

    Args:
        paths: files of `rate`, one per shard.
        identities: of the shards, as `data.shards.shard_identity` gives them.

    Attributes:
        models: hash of the models that gave them; None before the first shard.

    Raises:
        InputError: a file is missing.
    """

    def __init__(self, paths: list[str | Path], identities: list[dict]):
        self._files = _ShardFiles(paths, identities, "aesthetic scores", ("models", "scores"))
        self.models: str | None = None

    def of(self, shard: int) -> dict[int, float]:
        """Scores by image id.

        Raises:
            InputError: the file is malformed, of other images, or of other models than the first.
        """
        path, data = self._files.of(shard)
        self.models = self.models or data["models"]
        if data["models"] != self.models:
            raise InputError(f"{path}: scores of other models than the shards before; rate again")
        return {int(image): score for image, score in data["scores"].items()}


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


class DetectionFiles:
    """Detections in all images, shard by shard.

    Args:
        paths: files of `detect`, one per shard.
        identities: of the shards, as `data.shards.shard_identity` gives them.
        training_hash: hash of the training split.

    Raises:
        InputError: a file is missing.
    """

    def __init__(
        self,
        paths: list[str | Path],
        identities: list[dict],
        settings: AgreementSettings,
        *,
        training_hash: str,
    ):
        keys = ("split", "detector", "max_per_image", "detections")
        self._files = _ShardFiles(paths, identities, "detections", keys)
        self._settings, self._training_hash = settings, training_hash
        self._detector: str | None = None

    def of(self, shard: int) -> dict[str, list[list[float]]]:
        """Detections by image id, as `agreement.compact` gives them.

        Raises:
            InputError: the file is malformed, of other images, by a detector that was trained on another
                split, by another one than the first, or with fewer detections per image than the settings
                ask.
        """
        path, data = self._files.of(shard)
        self._detector = self._detector or data["detector"]
        if data["split"] != self._training_hash:
            raise InputError(f"{path}: by a detector that was trained on another training split")
        if data["detector"] != self._detector:
            raise InputError(f"{path}: by another detector than the shards before; detect again")
        if data["max_per_image"] < self._settings.max_per_image:
            raise InputError(
                f"{path}: {data['max_per_image']} detections per image at most, "
                f"filter.agreement.max_per_image asks for {self._settings.max_per_image}"
            )
        return data["detections"]


class Beside:
    """What the enabled filters need beside the labels, shard by shard, in any order.

    Args:
        scores, detections: files of `rate` and `detect`, one per shard.
        calibration: file of `calibrate`.
        identities: of the shards, see `data.shards.shard_identity`.
        training_hash: hash of the training split.

    Attributes:
        threshold: least aesthetic score; None where that filter is off.

    Raises:
        InputError: measurements are missing, or the first shard's are of other images, another split or other
            models.
    """

    def __init__(
        self,
        settings: FilterSettings,
        identities: list[dict],
        training_hash: str,
        *,
        scores: list[str] = (),
        calibration: str | None = None,
        detections: list[str] = (),
    ):
        self.threshold: float | None = None
        self._scores = self._detections = None
        if settings.aesthetic.enabled:
            self._scores = ScoreFiles(scores, identities)
        if settings.agreement.enabled:
            self._detections = DetectionFiles(
                detections, identities, settings.agreement, training_hash=training_hash
            )
        self._first: tuple | None = self._of(0)  # tells by which models all others have to be
        if self._scores is not None:
            self.threshold = read_threshold(
                calibration, settings.aesthetic, training_hash=training_hash, models=self._scores.models
            )

    def of(self, shard: int) -> Measurements:
        """Measurements of one shard.

        Raises:
            InputError: they are of other images, another split or other models.
        """
        first, self._first = self._first, None
        scores, detections = first if first is not None and shard == 0 else self._of(shard)
        return Measurements(scores, self.threshold, detections)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_first": None}  # another process reads what it needs

    def _of(self, shard: int) -> tuple[dict, dict]:
        scores = {} if self._scores is None else self._scores.of(shard)
        return scores, {} if self._detections is None else self._detections.of(shard)


class _ShardFiles:
    """One file per shard, whatever their names; the one expected is opened first, so that most are read
    once."""

    def __init__(self, paths: list[str | Path], identities: list[dict], what: str, keys: tuple[str, ...]):
        if len(paths) != len(identities):
            raise InputError(f"filter: {len(identities)} shards, but {len(paths)} files of {what}")
        self._paths = sorted(map(Path, paths), key=lambda path: path.name)
        self._identities, self._what, self._keys = identities, what, keys
        self._found: dict[int, int] = {}  # shard -> place of its file

    def of(self, shard: int) -> tuple[Path, dict]:
        """(path, contents) of the file of a shard; raises if a file is not of a shard, or the shard has
        none."""
        keys = ("of", *self._keys)
        if shard in self._found:
            path = self._paths[self._found[shard]]
            return path, _read(path, self._what, keys)
        for place in (shard, *range(len(self._paths))):
            if place in self._found.values():
                continue
            path = self._paths[place]
            data = _read(path, self._what, keys)
            number = data["of"].get("shard")
            if number not in range(len(self._identities)) or data["of"] != self._identities[number]:
                raise InputError(f"{path}: {self._what} of other images than the shards hold; measure again")
            if number in self._found:
                raise InputError(f"{path}: {self._what} of shard {number} are given twice")
            self._found[number] = place
            if number == shard:
                return path, data
        raise AssertionError(f"as many {self._what} as shards, none twice, and none of shard {shard}")


def _read(path: str | Path, what: str, keys: tuple[str, ...]) -> dict:
    data = read_json(path, what)
    if not set(keys) <= data.keys():
        raise InputError(f"{path}: not {what}; expected the keys {', '.join(keys)}")
    return data
