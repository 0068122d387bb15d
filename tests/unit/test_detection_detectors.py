"""Config files of detectors, and how models and configs travel in weights files."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from safetensors.torch import save_file
from tiny_detector import CATEGORIES, SIZE, tiny_config, tiny_dataset

from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.masks import rle_to_mask
from gen4det.detection.detectors import (
    build_model,
    from_json,
    limit_detections,
    load_backbone,
    load_config,
    to_json,
)
from gen4det.detection.inference import predict
from gen4det.detection.settings import DetectorSettings
from gen4det.detection.training import initial_model
from gen4det.detection.weights import load_detector, save_weights

CONFIGS = Path(__file__).parents[2] / "config" / "detectors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("detectors")


@pytest.fixture(scope="module")
def config(folder):
    return load_config(tiny_config(folder), classes=3)


@pytest.fixture(scope="module")
def model(config):
    return initial_model(config, DetectorSettings(config="tiny"), seed=0)


@pytest.fixture(scope="module")
def weights(folder, config, model) -> Path:
    """Of a detector that was never trained, so that it finds something everywhere."""
    path = folder / "weights.safetensors"
    save_weights(
        path,
        model.state_dict(),
        model=config.model.to_dict(),
        test_pipeline=config.test_pipeline,
        categories=sorted(CATEGORIES, key=lambda category: category["id"]),
    )
    return path


# --- config files -----------------------------------------------------------------------------------


def test_lvis_config_is_the_recipe_of_mosaicfusion():
    """Section 4.1.4: Mask R-CNN R50-FPN, 90k iterations of 16, /10 at 60k and 80k, short side 640-800."""
    config = load_config(CONFIGS / "lvis_mask_rcnn_r50_fpn.py", classes=1203)
    assert (config.max_iters, config.batch_size) == (90_000, 16)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (
        "SGD",
        0.02,
        0.9,
        1e-4,
    )
    assert config.param_scheduler[1]["milestones"] == [60_000, 80_000]
    assert config.model.backbone.depth == 50
    assert config.model.roi_head.bbox_head.num_classes == 1203
    assert config.model.roi_head.mask_head.num_classes == 1203
    assert config.model.test_cfg.rcnn.score_thr == 1e-4 and config.model.test_cfg.rcnn.max_per_img == 300
    short_sides = [scale[1] for scale in config.train_pipeline[2]["scales"]]
    assert (min(short_sides), max(short_sides)) == (640, 800)


def test_lvis_config_asks_for_the_pretrained_backbone_it_freezes():
    path = CONFIGS / "lvis_mask_rcnn_r50_fpn.py"
    config = load_config(path, classes=3)
    with pytest.raises(InputError, match="the backbone starts from pretrained weights; name a file"):
        initial_model(config, DetectorSettings(config=str(path)), seed=0)


def test_too_few_iterations_for_the_schedule_are_one_line():
    path = Path(__file__).parents[2] / "config/detectors/miniature_mask_rcnn.py"
    with pytest.raises(InputError, match=r"too few iterations \(1\) .*Cosine.* begin at its end"):
        load_config(path, classes=3, iterations=1)
    assert load_config(path, classes=3, iterations=2).max_iters == 2


def test_another_length_stretches_the_schedule(folder):
    schedule = [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type="MultiStepLR", by_epoch=False, begin=0, end=6, milestones=[2, 4]),
    ]
    path = tiny_config(folder, param_scheduler=schedule)
    config = load_config(path, classes=3, iterations=60)
    assert config.max_iters == 60
    assert config.param_scheduler[0]["end"] == 20 and config.param_scheduler[1]["milestones"] == [20, 40]
    tiny_config(folder)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("model = dict(", "cannot be read: "),
        ("model = 1 / 0", "cannot be read: ZeroDivisionError"),
        ("model = dict()", "no train_pipeline; a detector config says"),
    ],
)
def test_a_broken_config_is_one_line(tmp_path, text, problem):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        load_config(path, classes=3)
    assert "\n" not in str(caught.value)


def test_schedules_by_epoch_are_refused(tmp_path):
    path = tiny_config(tmp_path, param_scheduler=[dict(type="MultiStepLR", milestones=[8, 11])])
    with pytest.raises(InputError, match="MultiStepLR counts epochs; set by_epoch=False"):
        load_config(path, classes=3)


def test_a_missing_config_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such detector config"):
        load_config(tmp_path / "none.py", classes=3)


def test_configs_survive_json_with_their_tuples():
    value = {"scale": (128, 128), "steps": [(1, 2.5), None, True], "nested": {"type": "X", "end": ()}}
    assert from_json(json.loads(json.dumps(to_json(value)))) == value


def test_limit_detections_changes_the_second_stage_alone(config):
    limited = limit_detections(config.model.to_dict(), 7)
    assert limited["test_cfg"]["rcnn"]["max_per_img"] == 7
    assert limited["test_cfg"]["rpn"]["max_per_img"] == config.model.test_cfg.rpn.max_per_img
    assert config.model.test_cfg.rcnn.max_per_img == 300


# --- backbones --------------------------------------------------------------------------------------


def test_backbones_of_another_size_and_pickles_with_code_are_refused(tmp_path, model, config):
    wider = dict(config.model.backbone.to_dict(), base_channels=16)
    save_file(build_model({**wider}).state_dict(), tmp_path / "wider.safetensors")
    with pytest.raises(
        InputError, match=r"conv1.weight is \(16, 3, 7, 7\), the config asks for \(8, 3, 7, 7\)"
    ):
        load_backbone(model, tmp_path / "wider.safetensors")

    class Attack:
        def __reduce__(self):
            return print, ("code from a weights file was run",)

    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError, match="not readable as weights"):
        load_backbone(model, tmp_path / "pickle.pth")


def test_torch_files_of_plain_tensors_are_read(tmp_path, config):
    source = initial_model(config, DetectorSettings(config="tiny"), seed=5)
    state = {**source.backbone.state_dict(), "fc.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "resnet.pth")
    target = initial_model(config, DetectorSettings(config="tiny"), seed=6)
    load_backbone(target, tmp_path / "resnet.pth")
    torch.testing.assert_close(target.backbone.conv1.weight, source.backbone.conv1.weight)


# --- weights files ----------------------------------------------------------------------------------


def test_weights_know_their_classes_and_config(weights, model):
    detector = load_detector(weights, max_per_image=5)
    assert [category["id"] for category in detector.categories] == [3, 7, 20]
    assert detector.model.roi_head.test_cfg.max_per_img == 5
    assert not detector.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(detector.model.state_dict()[name], value)


def test_equal_weights_are_equal_files(weights, folder, config, model):
    again = folder / "again.safetensors"
    save_weights(
        again,
        model.state_dict(),
        model=config.model.to_dict(),
        test_pipeline=config.test_pipeline,
        categories=sorted(CATEGORIES, key=lambda category: category["id"]),
    )
    assert again.read_bytes() == weights.read_bytes()


def test_weights_of_something_else_are_refused(weights, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="weights of something else"):
        load_detector(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="not readable as safetensors"):
        load_detector(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="no such weights"):
        load_detector(tmp_path / "none.safetensors")


# --- predictions ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data")).val


def test_predictions_are_coco_results_of_the_data_set(weights, val):
    records = val.load()["images"]
    found = predict(weights, val.images, records, batch_size=4, device="cpu", max_per_image=10)
    assert found
    for detection in found:
        assert set(detection) == {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert detection["category_id"] in (3, 7, 20) and 0 <= detection["score"] <= 1
        x, y, w, h = detection["bbox"]
        assert 0 <= x <= x + w <= SIZE and 0 <= y <= y + h <= SIZE
        assert rle_to_mask(detection["segmentation"]).shape == (SIZE, SIZE)
    json.dumps(found)
    for record in records:
        scores = [d["score"] for d in found if d["image_id"] == record["id"]]
        assert len(scores) <= 10 and scores == sorted(scores, reverse=True)


def test_predictions_do_not_depend_on_the_batch(weights, val):
    records = val.load()["images"]
    one = predict(weights, val.images, records, batch_size=1, device="cpu", max_per_image=10)
    all_at_once = predict(
        weights, val.images, records, batch_size=6, device="cpu", max_per_image=10, workers=1
    )
    assert len(one) == len(all_at_once)
    for first, second in zip(one, all_at_once, strict=True):
        assert first["category_id"] == second["category_id"]
        assert first["score"] == pytest.approx(second["score"], abs=1e-4)
        assert first["bbox"] == pytest.approx(second["bbox"], abs=1e-2)


MIXED = [(64, 64), (48, 80), (96, 64), (64, 64), (33, 50), (40, 30), (48, 80), (130, 64), (64, 60), (64, 64)]
"""(height, width) of images; some share a padded shape, be they of one size or not."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[ImageStore, list[dict]]:
    """Images of many sizes and their records."""
    archive, rng = tmp_path_factory.mktemp("mixed") / "images.zip", np.random.default_rng(3)
    records = []
    with ShardWriter(archive) as writer:
        for number, (height, width) in enumerate(MIXED, start=1):
            pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            writer.add(f"{number}.png", encode_image(pixels, "png"))
            records.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    return ImageStore(archive), records


@pytest.mark.parametrize("masks", [True, False])
def test_images_of_mixed_sizes_are_seen_as_each_alone(weights, mixed, masks):
    images, records = mixed
    one, many = (
        predict(weights, images, records, batch_size=size, max_per_image=10, masks=masks) for size in (1, 16)
    )
    numbers = [detection["image_id"] for detection in one]
    assert numbers == sorted(numbers) and set(numbers) == {record["id"] for record in records}
    assert [(d["image_id"], d["category_id"]) for d in many] == [
        (d["image_id"], d["category_id"]) for d in one
    ]
    for first, second in zip(one, many, strict=True):
        assert first["score"] == pytest.approx(second["score"], abs=1e-5)
        assert first["bbox"] == pytest.approx(second["bbox"], abs=1e-3)
        if masks:
            alone, together = (rle_to_mask(d["segmentation"]) for d in (first, second))
            assert (alone ^ together).mean() < 1e-3  # a pixel at the threshold


def test_batches_are_full_where_shapes_are_equal(weights, mixed, monkeypatch):
    images, records = mixed
    sizes = []

    def counted(batch):
        sizes.append(len(batch))
        return pseudo_collate(batch)

    monkeypatch.setattr("gen4det.detection.inference.pseudo_collate", counted)
    predict(weights, images, records, batch_size=2, max_per_image=1, masks=False)
    assert sum(sizes) == len(records) and max(sizes) == 2 and len(sizes) == 7


def test_boxes_alone_are_the_same_boxes(weights, val):
    records = val.load()["images"]
    outlined = predict(weights, val.images, records, max_per_image=10)
    boxes = predict(weights, val.images, records, max_per_image=10, masks=False)
    assert len(boxes) == len(outlined) and not any("segmentation" in detection for detection in boxes)
    for first, second in zip(boxes, outlined, strict=True):
        assert first["category_id"] == second["category_id"] and first["score"] == second["score"]
        assert first["bbox"] == pytest.approx(second["bbox"], abs=1e-3)


def test_a_detector_without_second_stage_finds_boxes(folder, config, val):
    model = {
        "type": "RetinaNet",
        "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8, "out_indices": (1, 2, 3)},
        "neck": {"type": "FPN", "in_channels": [16, 32, 64], "out_channels": 8, "num_outs": 3},
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": len(CATEGORIES),
            "in_channels": 8,
            "feat_channels": 8,
            "stacked_convs": 1,
            "norm_cfg": None,
            "anchor_generator": {
                "type": "AnchorGenerator", "ratios": [1.0], "scales": [2], "strides": [8, 16, 32],
            },
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True},
        },
        "data_preprocessor": {"type": "DetDataPreprocessor", "mean": [127.5] * 3, "std": [127.5] * 3},
        "test_cfg": {
            "nms_pre": 9, "score_thr": 0, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 9,
        },
    }  # fmt: skip
    pipeline = config.test_pipeline
    path = folder / "dense.safetensors"
    categories = sorted(CATEGORIES, key=lambda category: category["id"])
    weights = build_model(model).state_dict()
    save_weights(path, weights, model=model, test_pipeline=pipeline, categories=categories)
    found = predict(path, val.images, val.load()["images"][:1], masks=False)
    assert found and not any("segmentation" in detection for detection in found)


def test_no_images_no_predictions(weights, val):
    assert predict(weights, val.images, [], batch_size=4, device="cpu") == []


def test_images_that_need_resizing_are_answered_in_their_own_pixels(folder, config, model, val):
    resized = [
        dict(type="LoadStoredImage"),
        dict(type="Resize", scale=(2 * SIZE, 2 * SIZE), keep_ratio=True),
        dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
    ]
    path = folder / "resized.safetensors"
    categories = sorted(CATEGORIES, key=lambda category: category["id"])
    save_weights(
        path, model.state_dict(), model=config.model.to_dict(), test_pipeline=resized, categories=categories
    )
    found = predict(path, val.images, val.load()["images"][:2], batch_size=2, device="cpu")
    assert found and all(detection["bbox"][0] + detection["bbox"][2] <= SIZE + 1e-3 for detection in found)
    assert all(detection["segmentation"]["size"] == [SIZE, SIZE] for detection in found)
