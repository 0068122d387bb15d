"""Predictions of a trained detector, in COCO's results format."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gen4det.core.progress import progress
from gen4det.data.images import ImageStore, image_name
from gen4det.data.masks import mask_to_rle
from gen4det.detection.detectors import build_pipeline
from gen4det.detection.loading import ignore_signals
from gen4det.detection.weights import load_detector


class _Images(TorchDataset):
    """Images as the detector's data loader reads them."""

    def __init__(self, images: ImageStore, records: list[dict], transforms: list[dict]):
        self.images, self.records, self.transforms = images, records, transforms
        self._pipeline = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        if self._pipeline is None:  # built in the process that uses it
            self._pipeline = build_pipeline(self.transforms)
        record = self.records[index]
        return self._pipeline(
            {
                "images": self.images,
                "img_path": image_name(record),
                "img_id": record["id"],
                "height": record["height"],
                "width": record["width"],
            }
        )


def predict(
    weights: Path,
    images: ImageStore,
    records: list[dict],
    *,
    batch_size: int = 16,
    device: str = "cpu",
    max_per_image: int = 300,
    masks: bool = True,
    workers: int = 0,
) -> list[dict]:
    """Detect objects in images.

    Args:
        weights: what `train` wrote.
        records: image records of a COCO or LVIS file ("id", "file_name" or "coco_url", "height", "width").
        batch_size: images at once, at most. Images of one batch have one padded shape: padding that only a
            larger neighbour asks for would change what the detector sees at the border, so results depend on
            the batch no more than floating point does.
        max_per_image: detections per image at most, the best ones.
        masks: whether a detector that outlines objects does so; False: it saves the second stage's mask head.
        workers: processes that load images.

    Returns:
        Per detection {"image_id", "category_id" of the data set, "bbox" [x, y, w, h] in pixels of the image,
        "score" in [0, 1]} and, from detectors with masks, "segmentation" as compressed RLE. In the order of
        the records, best score first within an image.

    Raises:
        InputError: the weights or an image are unusable.
    """
    detector = load_detector(weights, device=device, max_per_image=max_per_image)
    if not masks and (second_stage := getattr(detector.model, "roi_head", None)) is not None:
        second_stage.mask_head = None  # mmdet's sign of a detector without masks
    ids = [category["id"] for category in detector.categories]
    order = sorted(range(len(records)), key=lambda number: _proportions(records[number]))
    loader = DataLoader(
        _Images(images, [records[number] for number in order], detector.test_pipeline),
        batch_size=None,
        collate_fn=_one_by_one,
        num_workers=workers,
        worker_init_fn=ignore_signals,
    )
    found: list[list[dict]] = [[] for _ in records]
    places = iter(order)
    with progress(None, "predicting", "image", total=len(records)) as bar, torch.inference_mode():
        for batch in _batches_of_one_shape(loader, batch_size, detector.model):
            samples = detector.model.test_step(pseudo_collate(batch))
            for sample in samples:
                found[next(places)] = list(detections_of(sample, ids, masks))
            bar.update(len(samples))
    return [detection for of_image in found for detection in of_image]


def _proportions(record: dict) -> tuple[float, int]:
    """Images alike in this are alike in shape after the transforms, too, so that batches are full."""
    return record["width"] / record["height"], record["height"]


def _one_by_one(sample: dict) -> dict:
    return sample


def _batches_of_one_shape(samples: Iterable[dict], size: int, model: nn.Module) -> Iterator[list[dict]]:
    """Neighbours of one padded shape, `size` of them at most."""
    divisor = getattr(model.data_preprocessor, "pad_size_divisor", 1)

    def padded(sample: dict) -> tuple[int, ...]:
        return tuple(-(-side // divisor) for side in sample["inputs"].shape[-2:])

    for _, alike in groupby(samples, key=padded):
        while batch := list(islice(alike, size)):
            yield batch


def detections_of(sample, ids: list[int], masks: bool) -> Iterator[dict]:
    """Detections of one image, best score first, as `predict` returns them.

    Args:
        sample: mmdet's result.
        ids: category of each label.
        masks: whether outlines are wanted, where there are some.
    """
    found = sample.pred_instances.cpu()
    boxes = found.bboxes.double()
    boxes[:, 2:] -= boxes[:, :2]
    boxes, labels, scores = boxes.tolist(), found.labels.tolist(), found.scores.tolist()
    outlines = found.masks.numpy() if masks and "masks" in found else None
    for index in np.argsort(-found.scores.numpy(), kind="stable").tolist():
        detection = {
            "image_id": sample.img_id,
            "category_id": ids[labels[index]],
            "bbox": boxes[index],
            "score": scores[index],
        }
        if outlines is not None:
            detection["segmentation"] = mask_to_rle(outlines[index])
        yield detection
