"""Crops around objects with captions that name them, as InstaGen fine-tunes a generator on (section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.data.annotations import index_annotations
from gen4det.data.images import ImageStore, image_name
from gen4det.diffusion.words import caption_of, spoken_name

Box = Sequence[float]
"""[x, y, width, height] in pixels."""


@dataclass(frozen=True)
class Window:
    """A part of an image, in whole pixels; `right` and `bottom` are outside."""

    left: int
    top: int
    right: int
    bottom: int


def object_window(
    boxes: Sequence[Box], size: tuple[int, int], rng: np.random.Generator, *, neighbours: int = 2
) -> Window:
    """A window around one object and, at times, those nearest to it.

    An anchor is drawn, then how many objects, 1 to `neighbours`, and the boxes with the centres nearest to
    the anchor's. The window's side is that of their union, times 1 to 2; it lies anywhere around the union
    and is cut at the image's right and bottom border.

    Args:
        boxes: of the image's objects, not empty.
        size: (height, width) of the image.
    """
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], float)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    anchor = rng.integers(len(boxes))
    count = rng.integers(1, neighbours + 1)
    nearest = np.argsort(np.square(centres - centres[anchor]).sum(1), kind="stable")[:count]
    low, high = corners[nearest, :2].min(0), corners[nearest, 2:].max(0)
    side = (1 + rng.random()) * (high - low).max()
    start = []
    for first, last in zip(low, high, strict=True):
        earliest, latest = int(max(last - side, 0)), int(max(first, 0))
        start.append(int(rng.integers(min(earliest, latest), latest + 1)))
    left, top = start
    right, bottom = (int(np.ceil(value + side)) for value in (left, top))
    return Window(left, top, max(min(right, size[1]), left + 1), max(min(bottom, size[0]), top + 1))


def overlaps(box: Box, window: Window) -> bool:
    """Whether any part of a box lies in a window."""
    x, y, width, height = box
    return x < window.right and x + width > window.left and y < window.bottom and y + height > window.top


def fit_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """An image scaled to fit a square, its right or bottom filled with mid-grey.

    Args:
        pixels: uint8 (height, width, 3).

    Returns:
        float32 (3, side, side) in [-1, 1].
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    target = max(round(width * scale), 1), max(round(height * scale), 1)
    scaled = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.BICUBIC), np.float32)
    square = np.zeros((side, side, 3), np.float32)
    square[: target[1], : target[0]] = scaled / 127.5 - 1
    return np.ascontiguousarray(square.transpose(2, 0, 1))


class ObjectCrops(TorchDataset):
    """Training samples, numbered without end: sample n is the same whoever asks for it and whenever.

    Each pass over the images is in an order of its own. Items are {"pixels": float32 (3, side, side) in
    [-1, 1], "caption": str}.

    Args:
        annotations: COCO or LVIS dictionary; crowds are no objects.
        side: of the samples in pixels.
        seed: of order, crops, mirroring and captions.
        template: of captions; {} is where the names go.
        without_caption: share of samples whose caption is empty.
        neighbours: objects that a crop is drawn around, at most.
        source: of the annotations, for errors.

    Raises:
        InputError: no image shows an object.
    """

    def __init__(
        self,
        annotations: dict,
        images: ImageStore,
        *,
        side: int,
        seed: int,
        template: str = "a photograph of {}",
        without_caption: float = 0.0,
        neighbours: int = 2,
        source: str | Path = "annotations",
    ):
        names = {category["id"]: spoken_name(category) for category in annotations["categories"]}
        of_image = index_annotations(annotations)
        self.samples = []
        for record in annotations["images"]:
            objects = [
                (label["bbox"], names[label["category_id"]])
                for label in of_image[record["id"]]
                if not label.get("iscrowd") and min(label["bbox"][2:]) >= 1
            ]
            if objects:
                self.samples.append((image_name(record), objects))
        if not self.samples:
            raise InputError(
                f"{source}: none of {len(annotations['images'])} images shows an object to learn from "
                "(crowds and boxes of less than a pixel are none); label some"
            )
        self.images, self.side, self.seed = images, side, seed
        self.template, self.without_caption = template, without_caption
        self.neighbours = neighbours

    def __len__(self) -> int:
        """Images of one pass; samples are numbered on beyond it."""
        return len(self.samples)

    def __getitem__(self, number: int) -> dict:
        turn, place = divmod(number, len(self.samples))
        order = np.random.default_rng(seed_for(self.seed, "order", turn)).permutation(len(self.samples))
        rng = np.random.default_rng(seed_for(self.seed, "crop", number))
        name, objects = self.samples[order[place]]
        pixels = self.images.image(name)
        boxes = [box for box, _ in objects]
        window = object_window(boxes, pixels.shape[:2], rng, neighbours=self.neighbours)
        shown = [category for box, category in objects if overlaps(box, window)]
        shown = [shown[index] for index in rng.permutation(len(shown))]
        cut = pixels[window.top : window.bottom, window.left : window.right]
        sample = fit_square(cut[:, ::-1] if rng.random() < 0.5 else cut, self.side)
        caption = "" if rng.random() < self.without_caption else caption_of(shown, self.template)
        return {"pixels": torch.from_numpy(sample), "caption": caption}
