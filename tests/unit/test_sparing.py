"""Parts that spare work against the parts of mmdet whose places they take: equal to the bit."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gen4det.detection import detectors as making
from gen4det.detection import loop, sparing

# isort: split
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

CONFIG = Path(__file__).parents[2] / "config/detectors/miniature_mask_rcnn.py"
SIDES = (32, 16, 8, 4)


@pytest.fixture(scope="module")
def detectors():
    """(ours, the same with mmdet's own heads), equal weights, training."""
    torch.manual_seed(0)
    ours = making.build_model(making.load_config(CONFIG, classes=3).model.to_dict())
    ours.init_weights()
    theirs = copy.deepcopy(ours)
    theirs.rpn_head.__class__ = RPNHead
    theirs.roi_head.mask_head.__class__ = FCNMaskHead
    theirs.data_preprocessor.__class__ = DetDataPreprocessor
    assert type(ours.rpn_head) is sparing.RPNHead
    assert type(ours.roi_head.mask_head) is sparing.FCNMaskHead
    assert type(ours.data_preprocessor) is sparing.DetDataPreprocessor
    return ours.train(), theirs.train()


def outputs(images, seed=0, step=1e-4):
    """What a first stage could say of images of 128 px, in steps, so that there are equal scores."""
    random = torch.Generator().manual_seed(seed)

    def values(channels, side):
        drawn = torch.randn(images, channels, side, side, generator=random)
        return ((drawn / step).round() * step).contiguous(memory_format=torch.channels_last)

    return [values(3, side) for side in SIDES], [values(12, side) / 2 for side in SIDES]


def labelled(number, side=128, count=3):
    """A sample of an image with objects, as a data loader gives it, and its image."""
    rng = np.random.default_rng(number)
    corner = rng.uniform(0, side * 0.6, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(12, side * 0.35, (count, 2))]).astype(np.float32)
    masks = (rng.random((count, side, side)) > 0.4).astype(np.uint8)
    sample = DetDataSample(
        metainfo={"img_shape": (side, side), "ori_shape": (side, side), "scale_factor": (1, 1)}
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(rng.integers(0, 3, count)),
        masks=BitmapMasks(masks, side, side),
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    image = torch.from_numpy(rng.integers(0, 256, (3, side, side), dtype=np.uint8))
    return sample, image


def assert_equal_instances(found, expected):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours.keys()) == set(theirs.keys())
        for name in theirs.keys():
            assert torch.equal(ours[name], theirs[name]), name
            assert ours[name].dtype == theirs[name].dtype


@pytest.mark.parametrize("step", [1e-4, 0.5])  # 0.5: hundreds of equal scores
@pytest.mark.parametrize("stage", ["training", "prediction"])
def test_proposals_are_mmdets_to_the_bit(detectors, stage, step):
    ours, theirs = (detector.rpn_head for detector in detectors)
    settings = detectors[0].train_cfg.rpn_proposal if stage == "training" else None
    scores, deltas = outputs(3, step=step)
    metas = [{"img_shape": (120, 128)}] * 3
    found = ours.predict_by_feat(scores, deltas, batch_img_metas=metas, cfg=settings)
    assert_equal_instances(found, theirs.predict_by_feat(scores, deltas, batch_img_metas=metas, cfg=settings))
    assert len(found[0]) > 20


@pytest.mark.parametrize(
    "changes",
    [
        {"min_bbox_size": 20},
        {"nms": {"type": "soft_nms", "iou_threshold": 0.3}},
        {"nms_pre": 0},
        {"max_per_img": 10_000},
    ],
)
def test_settings_that_the_short_way_does_not_know_go_mmdets(detectors, changes, monkeypatch):
    ours, theirs = (detector.rpn_head for detector in detectors)
    settings = copy.deepcopy(detectors[0].train_cfg.rpn_proposal)
    settings.update(changes)
    if "soft_nms" in str(
        changes
    ):  # no operator of the stand-in: to ask for it says that mmdet's way was taken
        with pytest.raises(NotImplementedError, match="softnms"):
            ours.predict_by_feat(*outputs(1), batch_img_metas=[{"img_shape": (128, 128)}], cfg=settings)
        return
    metas = [{"img_shape": (128, 128)}] * 2
    found = ours.predict_by_feat(*outputs(2), batch_img_metas=metas, cfg=settings)
    expected = theirs.predict_by_feat(*outputs(2), batch_img_metas=metas, cfg=settings)
    assert_equal_instances(found, expected)


def test_images_of_several_sizes_have_the_proposals_of_each(detectors):
    ours, theirs = (detector.rpn_head for detector in detectors)
    metas = [{"img_shape": (128, 128)}, {"img_shape": (96, 128)}]
    found = ours.predict_by_feat(*outputs(2), batch_img_metas=metas)
    assert_equal_instances(found, theirs.predict_by_feat(*outputs(2), batch_img_metas=metas))
    assert found[1].bboxes[:, 3].max() <= 96 < found[0].bboxes[:, 3].max()


def test_anchors_follow_the_images(detectors):
    """Anchors are kept from batch to batch; batches of other sizes, or padded otherwise, have their own."""
    ours, theirs = (detector.rpn_head for detector in detectors)
    for sizes, padded in (
        ([(8, 8), (4, 4), (2, 2), (1, 1)], (32, 32)),
        ([(8, 8), (4, 4), (2, 2), (1, 1)], (24, 32)),
        ([(4, 8), (2, 4), (1, 2), (1, 1)], (16, 32)),
    ) * 2:
        metas = [{"pad_shape": padded}] * 2
        torch.testing.assert_close(
            ours.get_anchors(sizes, metas, "cpu"), theirs.get_anchors(sizes, metas, "cpu"), rtol=0, atol=0
        )


@pytest.mark.parametrize("sides", [(128, 128), (128, 96)])  # the second: padding, where no anchor counts
def test_losses_of_a_training_step_are_mmdets_to_the_bit(detectors, sides):
    """Both stages, with the regions that are sampled at random, and gradients of all parameters."""
    results = []
    for detector, wrap in zip(detectors, (sparing.TrainingSample.of, copy.deepcopy), strict=True):
        pairs = [labelled(number, side) for number, side in enumerate(sides)]
        data = {"inputs": [image for _, image in pairs], "data_samples": [wrap(it) for it, _ in pairs]}
        detector.zero_grad()
        detector.backbone.eval()  # running means would differ at the second call
        torch.manual_seed(5)
        np.random.seed(5)
        batch = detector.data_preprocessor(data, training=True)
        losses = detector(**batch, mode="loss")
        total, shown = detector.parse_losses(losses)
        total.backward()
        assert shown["loss_mask"] > 0
        results.append((shown, [parameter.grad for parameter in detector.parameters()]))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_targets_of_masks_are_mmdets_to_the_bit(detectors):
    """Also of an image without regions, and of regions that reach beyond the image."""
    ours, theirs = (detector.roi_head.mask_head for detector in detectors)
    settings = detectors[0].train_cfg.rcnn
    rng = np.random.default_rng(3)

    def regions(count):
        corner = rng.uniform(-20, 90, (count, 2))
        boxes = np.hstack([corner, corner + rng.uniform(3, 70, (count, 2))]).astype(np.float32)
        return SimpleNamespace(
            pos_priors=torch.from_numpy(boxes),
            pos_assigned_gt_inds=torch.from_numpy(rng.integers(0, 3, count)),
        )

    sampled = [regions(4), regions(0), regions(3)]
    labels = [labelled(number)[0].gt_instances for number in range(3)]
    found = ours.get_targets(copy.deepcopy(sampled), labels, settings)
    assert torch.equal(found, theirs.get_targets(copy.deepcopy(sampled), labels, settings))
    assert found.shape == (7, 28, 28) and 0 < found.mean() < 1
    none = [regions(0)] * 3
    assert torch.equal(ours.get_targets(none, labels, settings), theirs.get_targets(none, labels, settings))


def test_a_copy_of_training_labels_is_changed_alone():
    sample = sparing.TrainingSample.of(labelled(0)[0])
    before = sample.gt_instances.labels.clone()
    copied = copy.deepcopy([sample])[0]
    copied.gt_instances.labels = torch.zeros_like(before)
    copied.set_metainfo({"pad_shape": (1, 1)})
    copied.gt_instances.more = before
    assert torch.equal(sample.gt_instances.labels, before)
    assert "pad_shape" not in sample and "more" not in sample.gt_instances
    assert copied.gt_instances.masks is sample.gt_instances.masks
    assert copied.img_shape == sample.img_shape and isinstance(copied, sparing.TrainingSample)


def test_training_labels_go_where_they_are_asked_to():
    sample = sparing.TrainingSample.of(labelled(0)[0])
    assert sample.to(torch.device("cpu"), non_blocking=False) is sample
    moved = sample.to("meta")
    assert moved.gt_instances.bboxes.device.type == "meta"
    assert moved.gt_instances.keys() != [] and sample.gt_instances.bboxes.device.type == "cpu"


def test_sgd_in_one_call_gives_the_same_numbers():
    """With all that config files here ask of it, on parameters of both memory layouts."""
    asked = {"optimizer": {"type": "SGD", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-2}, "clip_grad": {}}
    found = loop._in_one_call(asked)
    assert (
        found["optimizer"] == {**asked["optimizer"], "foreach": True} and "foreach" not in asked["optimizer"]
    )
    results = []
    for options in (asked["optimizer"], found["optimizer"]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(), torch.nn.Conv2d(5, 2, 1))
        model[0].to(memory_format=torch.channels_last)
        optimiser = torch.optim.SGD(
            model.parameters(), **{name: value for name, value in options.items() if name != "type"}
        )
        for _ in range(5):
            optimiser.zero_grad()
            model(torch.randn(2, 3, 8, 8)).square().sum().backward()
            optimiser.step()
        results.append(list(model.parameters()))
    for one_by_one, together in zip(*results, strict=True):
        assert torch.equal(one_by_one, together)


@pytest.mark.parametrize(
    "optimiser", [{"type": "SGD", "lr": 1, "foreach": False}, {"type": "AdamW", "lr": 1}]
)
def test_a_choice_that_a_config_file_makes_and_other_optimisers_stay(optimiser):
    assert loop._in_one_call({"optimizer": optimiser}) == {"optimizer": optimiser}
