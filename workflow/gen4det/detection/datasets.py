"""Training images of several sources, in the format that mmdet's transforms expect."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from gen4det.core.errors import InputError
from gen4det.core.seeding import seed_torch
from gen4det.core.settings import suggest
from gen4det.data.images import ImageStore, image_name
from gen4det.data.label_sets import LabelSet
from gen4det.detection.completeness import flag_instances
from gen4det.detection.detectors import build_pipeline
from gen4det.detection.label_index import Contents, annotated_labels, index_images
from gen4det.detection.loading import LoadStoredImage  # noqa: F401  (registers the transform)
from gen4det.detection.samplers import Draw
from gen4det.detection.settings import Completeness
from gen4det.detection.sparing import TrainingSample

REDRAWS = 100
"""Attempts at an image of which augmentation leaves at least one object."""


@dataclass(frozen=True)
class Source:
    """Images and annotations of one origin."""

    name: str
    """Shown in logs and handed to the model with every image, e.g. "lvis" or "mosaicfusion"."""
    path: Path
    """The annotation file, for error messages."""
    labels: LabelSet
    """All labels, of which those count that are offered."""
    images: ImageStore
    synthetic: bool = False
    """Whether an engine generated the images."""
    completeness: Completeness = Completeness()
    """What the labels leave out."""

    @property
    def masked(self) -> bool:
        """Whether the labels have masks; engines may draw boxes only, all of them or none."""
        if self.completeness.masks is not None:
            return self.completeness.masks
        return not self.synthetic or self.labels.any_mask()


class DetectionDataset(TorchDataset):
    """Images of all sources, one behind the other.

    Items are addressed by `Draw(index, seed)`: all randomness of augmentation comes from the seed, so that an
    item does not depend on the worker that loads it or on what was loaded before.

    Args:
        sources: their categories must agree with `categories` where they name the same id.
        categories: COCO or LVIS categories; the class of label k is the one with the k-th smallest id.
        pipeline: transforms in mmdet's words, beginning with LoadStoredImage.
        masks: whether objects come with masks. Every object must then have one, but for synthetic sources
            that have none at all: their boxes stand in for masks, and are marked as not to be learned.
        keep_empty: whether images without objects stay.

    Raises:
        InputError: an annotation has no mask or an unknown category; no image is left.
    """

    def __init__(
        self,
        sources: list[Source],
        categories: list[dict],
        pipeline: list[dict],
        *,
        masks: bool = False,
        keep_empty: bool = False,
    ):
        self.categories = sorted(categories, key=lambda category: category["id"])
        self.metainfo = {"classes": tuple(category["name"] for category in self.categories)}
        self.sources = [source.name for source in sources]
        self._stores = [source.images for source in sources]
        self._flags = [
            {
                "ignore_background": source.completeness.background == "ignore",
                "masked": source.masked,
                "proposals": source.completeness.proposals,
            }
            for source in sources
        ]
        self.background_ignored = any(flags["ignore_background"] for flags in self._flags)
        """Whether background of some images has no loss."""
        self.categories_missing = any(source.completeness.categories != "all" for source in sources)
        """Whether some images have labels of some categories only."""
        self._transforms = pipeline
        self._pipeline = None
        self._classes = {category["id"]: label for label, category in enumerate(self.categories)}
        self._labels = [source.labels for source in sources]
        self._annotated, self._masks = [], masks
        indices = []
        for source, flags in zip(sources, self._flags, strict=True):
            _check_categories(source, self.categories)
            by_image, annotated = _annotated(source, self._classes)
            self._annotated.append((by_image, annotated))
            indices.append(
                index_images(
                    source.labels,
                    self._classes,
                    annotated=annotated,
                    by_image=by_image,
                    needs_masks=masks and flags["masked"],
                    keep_empty=keep_empty,
                )
            )
        self._rows = np.concatenate([index.rows for index in indices])
        if not len(self._rows):
            raise InputError(f"{sources[0].path}: no image with an object to train on")
        self.origin = np.repeat(np.arange(len(sources), dtype=np.int16), [len(it.rows) for it in indices])
        """Number of each image's source, (N,) int16."""
        self.synthetic = np.array([source.synthetic for source in sources])[self.origin]
        """Whether an engine generated the image, (N,) bool."""
        self.masked = np.array([flags["masked"] for flags in self._flags])[self.origin]
        """Whether its labels have masks, (N,) bool."""
        self.contents = Contents.joined([index.contents for index in indices])
        """Labels each image shows; crowd regions do not count."""

    def __len__(self) -> int:
        return len(self.origin)

    def record(self, index: int) -> dict:
        """Annotations of one image as mmdet's transforms read them."""
        number = int(self.origin[index])
        labels, (by_image, annotated) = self._labels[number], self._annotated[number]
        image, annotations = labels.record(int(self._rows[index]))
        if by_image:
            annotated = annotated_labels(image, self._classes, labels)
        masks = "real" if self._masks and self._flags[number]["masked"] else "boxes" if self._masks else None
        return {
            "img_path": image_name(image),
            "img_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "instances": _instances(image, annotations, self._classes, annotated, masks),
            "annotated": annotated,
            "images": self._stores[number],
            "source": self.sources[number],
            "sample_idx": index,
        }

    def __getitem__(self, draw: Draw) -> dict:
        if self._pipeline is None:  # built in the process that uses it
            self._pipeline = build_pipeline(self._transforms)
        index = draw.index
        for attempt in range(REDRAWS):
            seed_everything(draw.seed + attempt)
            record = self.record(index)
            data = self._pipeline(record)
            if data is not None:
                flags = self._flags[self.origin[index]] | {"annotated": record["annotated"]}
                data["data_samples"] = TrainingSample.of(data["data_samples"])
                flag_instances(data["data_samples"].gt_instances, **flags)
                return data
            alike = np.flatnonzero(self.synthetic == self.synthetic[draw.index])
            index = int(alike[random.randrange(len(alike))])
        raise InputError(f"training pipeline: augmentation left no object in any of {REDRAWS} images")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


def _check_categories(source: Source, categories: list[dict]) -> None:
    names = {category["id"]: category["name"] for category in categories}
    for category in source.labels.categories:
        known = names.get(category["id"])
        if known != category["name"]:
            problem = "is not a category of the data set" if known is None else f"is {known!r} there"
            raise InputError(f"{source.path}: category {category['id']} ({category['name']!r}) {problem}")


def _instances(
    image: dict,
    annotations: list[dict],
    classes: dict[int, int],
    annotated: list[int] | None,
    masks: str | None,
) -> list[dict]:
    """Objects of an image in mmdet's words, in the order of the file.

    Args:
        annotated: labels of the categories that count; None: all.
        masks: "real"; "boxes", which stand in for them; or None.
    """
    width, height = image["width"], image["height"]
    instances = []
    for annotation in annotations:
        label = classes[annotation["category_id"]]
        if annotated is not None and label not in annotated:
            continue
        x, y, w, h = annotation["bbox"]
        inside_x = min(x + w, width) - max(x, 0)
        inside_y = min(y + h, height) - max(y, 0)
        # The rules of `index_images`, for one label after the other.
        if annotation.get("ignore") or inside_x <= 0 or inside_y <= 0 or w < 1 or h < 1:
            continue
        instance = {
            "bbox": [x, y, x + w, y + h],
            "bbox_label": label,
            "ignore_flag": int(bool(annotation.get("iscrowd"))),
        }
        if masks is not None:
            instance["mask"] = annotation["segmentation"] if masks == "real" else [_corners(x, y, w, h)]
        instances.append(instance)
    return instances


def _annotated(source: Source, labels: dict[int, int]) -> tuple[bool, list[int] | None]:
    """(whether each image says which categories are annotated in it; else their labels, sorted, None:
    all)."""
    declared = source.completeness.categories
    if declared in ("all", "image"):
        return declared == "image", None
    if declared == "base":
        chosen = sorted(labels[it["id"]] for it in source.labels.categories if it.get("split") == "base")
        if not chosen:
            raise InputError(
                f"{source.path}: labels are declared for base categories, but none is called base; train on "
                "a subset with labels: base"
            )
        return False, chosen
    names = {category["name"]: labels[category["id"]] for category in source.labels.categories}
    for name in declared:
        if name not in names:
            raise InputError(
                f"{source.path}: labels are declared for {name!r}, which is no category{suggest(name, names)}"
            )
    return False, sorted(names[name] for name in declared)


def _corners(x: float, y: float, w: float, h: float) -> list[float]:
    """A box as polygon: transforms and batches need a mask, if only one that is not learned."""
    return [x, y, x + w, y, x + w, y + h, x, y + h]
