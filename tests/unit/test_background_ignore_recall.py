"""A toy of what background ignore is for: objects that an engine drew and did not label."""

import json
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from tiny_detector import CATEGORIES, tiny_config, tiny_dataset, tiny_synthetic

from gen4det.data.datasets import Dataset
from gen4det.detection.datasets import DetectionDataset, seed_everything
from gen4det.detection.detectors import load_config
from gen4det.detection.samplers import Draw
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.detection.training import batch_sampler, initial_model, load_sources

DISC = 7
SEEDS = range(5)
ITERATIONS = 60
SCORE = 0.5
"""Objectness from which on a proposal counts as found."""


def region_proposals(folder: Path) -> Path:
    """The tiny detector's region proposals as a detector of their own: an object is an object."""
    path = tiny_config(folder)
    path.write_text(
        path.read_text()
        + """
pipeline = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
]
train_pipeline = pipeline
test_pipeline = pipeline
model = dict(
    type="RPN",
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(_delete_=True),
    train_cfg=dict(rpn_proposal=None, rcnn=None),
    test_cfg=dict(rpn=dict(max_per_img=30, nms=dict(type="nms", iou_threshold=0.3)), rcnn=None),
)
"""
    )
    return path


def world(folder: Path) -> tuple[Dataset, Path]:
    """Few real images with discs and squares; many synthetic ones whose discs have lost their labels."""
    dataset = tiny_dataset(folder / "real", [[3, 7], [7, 3], [3, 7, 3], [7, 3, 7]])
    path = tiny_synthetic(folder / "drawn", [[3, 7], [7, 3, 7], [3, 7, 3], [7, 7, 3]] * 4)
    data = json.loads(path.read_text())
    data["annotations"] = [label for label in data["annotations"] if label["category_id"] != DISC]
    path.write_text(json.dumps(data))
    return dataset, path


def test_objects_without_labels_are_found_more_often(tmp_path):
    dataset, drawn = world(tmp_path)
    unseen = tiny_dataset(tmp_path / "unseen", [[3, 7], [7, 3], [7, 3, 7], [3, 7, 3]] * 6)
    config = region_proposals(tmp_path)
    recalls = {
        ignore: [recall_of_discs(config, dataset, drawn, unseen, ignore, seed) for seed in SEEDS]
        for ignore in (False, True)
    }
    assert np.mean(recalls[True]) > np.mean(recalls[False]), recalls


def recall_of_discs(
    config: Path, dataset: Dataset, drawn: Path, unseen: Dataset, ignore_background: bool, seed: int
) -> float:
    """Train, then the share of the discs in unseen images that are found."""
    settings = TrainSettings(
        detector=DetectorSettings(
            config=str(config),
            synthetic_batches=0.5,
            repeat_by="each",
            ignore_background=ignore_background,
        ),
        seed=seed,
    )
    loaded = load_config(config, classes=len(CATEGORIES))
    data = DetectionDataset(
        *load_sources(dataset, [drawn], detector=settings.detector), loaded.train_pipeline
    )
    model = initial_model(loaded, settings.detector, seed).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    batches = iter(batch_sampler(data, settings, 4))
    for iteration in range(ITERATIONS):
        seed_everything(1000 * seed + iteration)
        batch = model.data_preprocessor(pseudo_collate([data[draw] for draw in next(batches)]), training=True)
        losses = model.loss(batch["inputs"], batch["data_samples"])
        optimiser.zero_grad()
        sum(sum(values) for values in losses.values()).backward()
        optimiser.step()
    return _recall(model.eval(), loaded, unseen)


@torch.no_grad()
def _recall(model: torch.nn.Module, config: object, unseen: Dataset) -> float:
    from mmdet.structures.bbox import bbox_overlaps

    data = DetectionDataset(*load_sources(unseen, []), config.train_pipeline)
    items = [data[Draw(index, 0)] for index in range(len(data))]
    batch = model.data_preprocessor(pseudo_collate(items), training=False)
    covered = []
    for sample in model.predict(batch["inputs"], batch["data_samples"], rescale=False):
        labels = sample.gt_instances
        found = sample.pred_instances.bboxes[sample.pred_instances.scores >= SCORE]
        overlaps = bbox_overlaps(labels.bboxes[labels.labels == 1], found)
        covered += (overlaps >= 0.5).any(1).tolist()
    return float(np.mean(covered))
