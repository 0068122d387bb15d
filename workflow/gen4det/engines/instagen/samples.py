"""What the head is trained on: drawn images, their stored latents, and the labelling detector's boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.data.images import ImageStore
from gen4det.data.shards import image_folder, load_shard, read_array, shard_identity
from gen4det.detection.grounding_head import Objects
from gen4det.engines.instagen.draw import LATENTS
from gen4det.engines.instagen.vocabulary import Vocabulary
from gen4det.engines.shard_writer import FIRST_IMAGE_ID

Found = tuple[int, float, list[float]]
"""What a detector found: category id, score, [x, y, width, height] in pixels."""


@dataclass(frozen=True)
class Sample:
    """One drawn image."""

    shard: int
    """Position of its shard."""
    record: dict
    """Its record in the shard."""
    found: list[Found]
    """The detector's labels: prompted base categories, scores of at least alpha."""


class DrawnImages:
    """The images of all shards.

    Args:
        shards: label files of the drawn shards.
        detections: what the labelling detector found in each of them, in the same order.
        alpha: least score of its labels.

    Raises:
        InputError: a shard is unusable, or its detections are of other images.
    """

    def __init__(self, shards: Sequence[Path], detections: Sequence[Path], words: Vocabulary, alpha: float):
        if len(shards) != len(detections):
            raise InputError(f"instagen: {len(shards)} shards, but detections in {len(detections)}")
        self._stores: list[tuple[ImageStore, str]] = []
        self.samples: list[Sample] = []
        for number, (path, file) in enumerate(zip(shards, detections, strict=True)):
            shard = load_shard(path)
            answers = read_detections(file, shard)
            archive = Path(shard["info"]["archive"]).name
            self._stores.append((ImageStore(image_folder(path, shard)), archive))
            for record in shard["images"]:
                found = base_labels(answers.get(str(record["id"]), []), record["categories"], words, alpha)
                self.samples.append(Sample(number, record, found))

    def latents(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Stored latents, float32 (samples, channels, cells, cells). Raises InputError if there are none."""
        arrays = []
        for sample in samples:
            store, archive = self._stores[sample.shard]
            index = sample.record["id"] - FIRST_IMAGE_ID
            arrays.append(read_array(store, archive, index, LATENTS))
        return torch.from_numpy(np.stack(arrays))

    def base_set(self) -> list[Sample]:
        """Images of base categories in which the detector found one."""
        return [it for it in self.samples if it.record["set"] == "base" and it.found]

    def novel_set(self, per_category: int | None) -> list[Sample]:
        """Images of novel categories, the first ones of each, whatever was found in them."""
        return [
            it
            for it in self.samples
            if it.record["set"] == "novel" and (per_category is None or it.record["number"] < per_category)
        ]


def read_detections(path: Path, shard: dict) -> dict[str, list[list[float]]]:
    """By image id [category id, score, x, y, width, height], best first.

    Raises:
        InputError: not detections, or of other images than the shard's.
    """
    answer = read_json(path, "detections")
    if not {"of", "detections"} <= answer.keys():
        raise InputError(f"{path}: not detections; expected the keys of, detections")
    if answer["of"] != shard_identity(shard):
        raise InputError(f"{path}: detections of other images than the shard holds; detect again")
    return answer["detections"]


def base_labels(
    answers: list[list[float]], categories: Sequence[int], words: Vocabulary, alpha: float
) -> list[Found]:
    """Labels of an image from the detector's answers: prompted base categories alone, at least `alpha`.

    The released code hands its detector red and blue exchanged; here the images are read from the shard, as
    all stages read them.
    """
    wanted = set(categories) & set(words.base)
    return [
        (int(category), score, list(box))
        for category, score, *box in answers
        if category in wanted and score >= alpha
    ]


def objects_of(found: Sequence[Found], record: dict) -> Objects:
    """Labels as the head learns them."""
    width, height = record["width"], record["height"]
    boxes = [[x / width, y / height, (x + w) / width, (y + h) / height] for _, _, (x, y, w, h) in found]
    slots = [record["categories"].index(category) for category, *_ in found]
    return Objects(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(slots).long())


def slots_of(records: Sequence[dict], wanted: set[int] | frozenset[int] | None = None) -> torch.Tensor:
    """Which slots of a batch hold a category, of those `wanted`: bool (images, slots)."""
    most = max(len(record["categories"]) for record in records)
    slots = torch.zeros(len(records), most, dtype=torch.bool)
    for row, record in enumerate(records):
        for slot, category in enumerate(record["categories"]):
            slots[row, slot] = wanted is None or category in wanted
    return slots
