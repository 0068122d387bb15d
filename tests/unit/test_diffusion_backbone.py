"""Detectors on a frozen diffusion model: DiffusionEngine's acceptance checks 1 to 3 and 6 for its adapter."""

import copy
import csv
import hashlib
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_adapter import CONFIGS, World, config_file, save_model
from tiny_detector import StopAfter, tiny_dataset, write_images

from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore
from gen4det.detection.backbones import FrozenDiffusion
from gen4det.detection.detectors import build_model, fit_diffusion, limit_detections, load_config
from gen4det.detection.inference import predict
from gen4det.detection.labelling import detect_in_features
from gen4det.detection.settings import DetectorSettings
from gen4det.detection.training import train
from gen4det.detection.weights import load_detector
from gen4det.diffusion.frozen import FrozenFeatures, fingerprint, load_frozen
from gen4det.diffusion.pipelines import load_text_to_image
from gen4det.diffusion.settings import ModelSource

KINDS = ["dino", "faster_rcnn"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, diffusion_folder) -> World:
    return World(tmp_path_factory.mktemp("world"), diffusion_folder)


@pytest.fixture(scope="module", params=KINDS)
def trained(request, world) -> tuple[str, Path]:
    """An uninterrupted training of each kind of detector: (kind, weights)."""
    result, output = world.train(request.param, "whole")
    assert result.finished
    return request.param, output


def draws(images: int, seed: int = 0, side: int = 8) -> torch.Tensor:
    return torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(seed))


# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (72, 104), (32, 32)])
def test_check_1_levels_channels_and_sizes(frozen, size):
    assert frozen.channels == [96, 128, 192, 352]
    shape = frozen.latent_shape(*size)
    assert shape == (4, size[0] // 8, size[1] // 8)
    noise = torch.randn(2, 1, *shape)
    levels = frozen(torch.rand(1, 3, *size) * 2 - 1, *noise)
    halved = [shape[1:]]
    for _ in range(3):
        halved.append(tuple(-(-side // 2) for side in halved[-1]))
    assert [level.shape for level in levels] == [
        (1, channels, *side) for channels, side in zip(frozen.channels, halved, strict=True)
    ]


def test_check_1_the_neck_adds_a_fifth_level(world, frozen):
    config = load_config(config_file(world.place, "dino"), classes=3)
    fit_diffusion(config.model, ModelSource(path=str(world.model)), config="c")
    assert config.model.neck.in_channels == frozen.channels
    model = build_model(config.model.to_dict()).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.rand(2, 3, 128, 256) * 2 - 1)
    assert [tuple(128 // level.shape[2] for _ in "x") + level.shape[1:2] for level in maps] == [
        (8, 96), (16, 96), (32, 96), (64, 96), (128, 96),
    ]  # fmt: skip


def test_check_3_one_evaluation_at_time_step_1_without_guidance(frozen, diffusion_folder):
    calls = []
    hook = frozen.unet.register_forward_pre_hook(
        lambda module, arguments, named: calls.append((*arguments, named["encoder_hidden_states"])),
        with_kwargs=True,
    )
    pixels, posterior, noise = torch.rand(3, 3, 64, 64) * 2 - 1, draws(3, 1), draws(3, 2)
    levels = frozen(pixels, posterior, noise)
    hook.remove()
    ((latents, t, states),) = calls
    assert t == 1 and len(latents) == len(states) == 3
    pipeline = load_text_to_image(ModelSource(path=str(diffusion_folder)))
    found = pipeline.vae.encode(pixels).latent_dist
    clean = (found.mean + found.std * posterior) * 0.18215
    # Stable Diffusion's schedule, worked out by hand: scaled-linear betas from 0.00085 to 0.012.
    torch.testing.assert_close(latents, 0.998296**0.5 * clean + 0.04128 * noise, rtol=1e-4, atol=1e-4)
    # Features of a pass whose batch guidance has doubled, of the half under the same embedding.
    null = pipeline.encode_prompt("", "cpu", 1, False)[0]
    with torch.no_grad(), frozen.taps.capture(slice(3, None)) as features:
        other = torch.randn(3, 77, 16)
        frozen.unet(latents.repeat(2, 1, 1, 1), 1, torch.cat([other, null.expand(3, -1, -1)]))
    for level, expected in zip(levels, features.pyramid(), strict=True):
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-4)
    for level, again in zip(levels, frozen(pixels, posterior, noise), strict=True):
        assert torch.equal(level, again)


def test_the_text_encoder_is_asked_once_and_never_again(diffusion_folder):
    pipeline = load_text_to_image(ModelSource(path=str(diffusion_folder)))
    calls = []
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    features = FrozenFeatures(pipeline)
    for _ in range(3):
        features(torch.zeros(1, 3, 64, 64), draws(1), draws(1))
    assert len(calls) == 1


def test_features_in_evaluation_depend_on_no_other_image(diffusion_folder):
    backbone = FrozenDiffusion(source={"path": str(diffusion_folder)}).eval()
    images = torch.rand(5, 3, 64, 64) * 2 - 1
    together = backbone(images)
    for number in range(5):
        for alone, level in zip(backbone(images[number : number + 1]), together, strict=True):
            torch.testing.assert_close(alone[0], level[number], atol=1e-5, rtol=1e-5)
    for half, level in zip(backbone(images[3:]), together, strict=True):
        torch.testing.assert_close(half, level[3:], atol=1e-5, rtol=1e-5)


def test_noise_is_drawn_anew_while_training_and_fixed_in_evaluation(diffusion_folder):
    backbone = FrozenDiffusion(source={"path": str(diffusion_folder)})
    image = torch.zeros(1, 3, 64, 64)
    assert torch.equal(backbone.eval()(image)[0], backbone(image)[0])
    backbone.train()
    torch.manual_seed(3)
    first, second = backbone(image)[0], backbone(image)[0]
    assert not torch.allclose(first, second)
    torch.manual_seed(3)
    assert torch.equal(backbone(image)[0], first)
    other = FrozenDiffusion(source={"path": str(diffusion_folder)}, noise_seed=1).eval()
    assert not torch.allclose(other(image)[0], backbone.eval()(image)[0])


# --- a part of the detector that is none ------------------------------------------------------------


def test_check_2_the_model_is_no_part_of_the_detector(diffusion_folder):
    backbone = FrozenDiffusion(source={"path": str(diffusion_folder)})
    assert not list(backbone.parameters()) and not list(backbone.buffers()) and not backbone.state_dict()
    assert copy.deepcopy(backbone).features is backbone.features  # an average of weights shares it
    assert not backbone.train().features.unet.training
    assert FrozenDiffusion(source={"path": str(diffusion_folder)}).features is backbone.features  # read once


@pytest.mark.parametrize("kind", KINDS)
def test_check_2_training_changes_the_adapter_and_nothing_else(world, frozen, kind, monkeypatch):
    def numbers():
        digest = hashlib.sha256()
        for module in (frozen.unet, frozen.vae):
            for value in module.state_dict().values():
                digest.update(value.numpy())
        return digest.hexdigest()

    from gen4det.detection import loop

    seen = {}
    original = loop.TrainingLoop._iterate

    def watching(self, batch):
        model = self.runner.model
        seen.setdefault("before", {name: value.clone() for name, value in model.named_parameters()})
        original(self, batch)
        seen["model"], seen["state"] = model, self.state()
        seen["optimised"] = sum(len(g["params"]) for g in self.runner.optim_wrapper.param_groups)

    monkeypatch.setattr(loop.TrainingLoop, "_iterate", watching)
    before = numbers()
    world.train(kind, "watched")
    assert numbers() == before
    assert all(value.grad is None for value in frozen.unet.parameters())
    after = dict(seen["model"].named_parameters())
    assert seen["optimised"] == len(after)
    assert not any(name.startswith("backbone") for name in (*after, *seen["state"]["state_dict"]))
    unchanged = [name for name, value in after.items() if torch.equal(value, seen["before"][name])]
    # DINO builds as many box branches as it may need; a detector without them changes everywhere.
    assert not unchanged, unchanged


@pytest.mark.parametrize("kind", KINDS)
def test_check_10_batches_without_objects_are_learned_from(world, kind, tmp_path):
    empty = tiny_dataset(tmp_path / "data", [[3]] + [[]] * 11)
    settings = world.settings(kind, keep_empty=True, iterations=3)
    output = tmp_path / "weights.safetensors"
    assert train(settings, empty, [], output, fingerprint={}).finished
    with open(tmp_path / "losses.csv") as stream:
        losses = list(csv.DictReader(stream))
    boxes = [sum(float(row[name] or 0) for name in row if "bbox" in name) for row in losses]
    assert 0 in boxes, "no batch was without objects"
    assert all(math.isfinite(float(value)) for row in losses for value in row.values() if value)


def test_weights_hold_no_unet(trained, frozen):
    kind, output = trained
    state = load_file(output)
    assert not any(name.startswith("backbone") for name in state)
    own = sum(value.numel() for value in state.values())
    assert output.stat().st_size < 4 * own + 200_000  # its own numbers and a description


def test_stopped_trainings_end_with_the_same_bytes(trained, world):
    kind, output = trained
    assert not world.train(kind, "stopped", stop=StopAfter(2))[0].finished
    checkpoint = world.place / f"stopped-{kind}" / "work" / "checkpoint.pt"
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not any(name.startswith("backbone") for name in stored)
    result, again = world.train(kind, "stopped")
    assert result.finished and again.read_bytes() == output.read_bytes()


def test_a_checkpoint_is_refused_after_the_model_was_exchanged(world, tmp_path):
    world.train("dino", "exchanged", stop=StopAfter(1))
    settings = world.settings("dino", diffusion={"path": str(save_model(tmp_path / "other", seed=5))})
    with pytest.raises(InputError, match="begun with other diffusion model; delete this folder"):
        world.train("dino", "exchanged", settings=settings)


# --- detecting --------------------------------------------------------------------------------------


def test_detections_depend_on_no_other_image_and_are_the_same_again(trained, world):
    records = world.dataset.val.load()["images"]
    runs = [
        predict(trained[1], world.dataset.val.images, records, batch_size=size, max_per_image=10)
        for size in (1, 4, 4)
    ]
    assert runs[1] == runs[2] and len(runs[0]) == len(runs[1]) > 0
    for one, other in zip(runs[0], runs[1], strict=True):
        assert one["image_id"] == other["image_id"] and one["score"] == pytest.approx(
            other["score"], abs=1e-4
        )


def test_check_6_boxes_lie_inside_images_of_any_size(trained, tmp_path, monkeypatch):
    """Sides that are no whole latent cells: padding is no part of the image."""
    import tiny_detector

    for side in (61, 83):
        monkeypatch.setattr(tiny_detector, "SIZE", side)
        data = write_images(tmp_path / f"{side}.zip", [[3], [7, 3]], seed=side)
        found = predict(trained[1], ImageStore(tmp_path / f"{side}.zip"), data["images"], batch_size=2)
        assert found
        for detection in found:
            x, y, w, h = detection["bbox"]
            assert x >= -1e-3 and y >= -1e-3 and x + w <= side + 1e-3 and y + h <= side + 1e-3


def test_a_detector_may_be_given_features_instead_of_an_image(trained):
    """What labels a generated image from its last step: the features decide, whatever the pixels are."""
    detector = load_detector(trained[1])
    from mmdet.structures import DetDataSample

    about = {"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1.0, 1.0), "img_id": 1}
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]

    def detections(image):
        batch = {"inputs": [image], "data_samples": [DetDataSample(metainfo=about)]}
        with torch.inference_mode():
            return detector.model.test_step(batch)[0].pred_instances

    expected = detections(images[0])
    with torch.inference_mode():
        pixels = detector.model.data_preprocessor({"inputs": [images[0]], "data_samples": []})["inputs"]
        features = detector.model.backbone(pixels)
    with detector.model.backbone.given(features):
        found = detections(images[1])
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    torch.testing.assert_close(found.scores, expected.scores)
    other = detections(images[1]).scores
    assert other.shape != expected.scores.shape or not torch.allclose(other, expected.scores)


def test_features_alone_are_labelled_as_their_images_are(trained, world):
    """Detections from the features of a batch are those that predicting the images gives."""
    records = world.dataset.val.load()["images"]
    expected = predict(trained[1], world.dataset.val.images, records, batch_size=6)
    detector = load_detector(trained[1], max_per_image=300)
    images = [world.dataset.val.images.image(record["file_name"]) for record in records]
    pixels = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]) / 127.5 - 1
    with torch.inference_mode():
        features = detector.model.backbone(pixels)
    found = detect_in_features(detector, features)
    assert len(found) == len(records) and sum(map(len, found)) == len(expected)
    flat = [detection for of_image in found for detection in of_image]
    for one, other in zip(flat, expected, strict=True):
        assert records[one["image_id"]]["id"] == other["image_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
    assert flat[0]["bbox"] == pytest.approx(expected[0]["bbox"], abs=0.1)
    with pytest.raises(InputError, match="features of .* channels: the detector's model has"):
        detect_in_features(detector, features[:3])


def test_a_detector_of_few_queries_answers_with_what_it_has(world, tmp_path):
    config = load_config(config_file(tmp_path, "dino"), classes=1)
    assert limit_detections(config.model.to_dict(), 300)["test_cfg"]["max_per_img"] == 20
    assert limit_detections(config.model.to_dict(), None)["test_cfg"]["max_per_img"] == 20
    assert limit_detections(config.model.to_dict(), 5)["test_cfg"]["max_per_img"] == 5


# --- refusals -----------------------------------------------------------------------------------------


def test_another_model_is_refused_when_detecting(trained, world, diffusion_folder, tmp_path):
    kept = diffusion_folder.rename(tmp_path / "kept")
    try:
        save_model(diffusion_folder, seed=9)
        load_frozen.__globals__["_load"].cache_clear()
        with pytest.raises(InputError, match="another model .* than the one this detector was trained on"):
            load_detector(trained[1])
    finally:
        shutil.rmtree(diffusion_folder)
        kept.rename(diffusion_folder)
        load_frozen.__globals__["_load"].cache_clear()
    load_detector(trained[1])


def test_model_and_backbone_belong_together(world, tmp_path):
    config = load_config(config_file(tmp_path, "dino"), classes=3)
    with pytest.raises(InputError, match="c.py: backbone FrozenDiffusion: name its model in `diffusion`"):
        fit_diffusion(config.model, None, config="c.py")
    plain = load_config(CONFIGS / "miniature_faster_rcnn.py", classes=3)
    assert fit_diffusion(plain.model, None, config="c.py") is None
    with pytest.raises(InputError, match="c.py: backbone ResNet: `diffusion` has no meaning for it"):
        fit_diffusion(plain.model, ModelSource(path=str(world.model)), config="c.py")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        fit_diffusion(config.model, ModelSource(path="nowhere"), config="c.py")
    config.model.neck = None
    with pytest.raises(InputError, match="followed by a neck with in_channels"):
        fit_diffusion(config.model, ModelSource(path=str(world.model)), config="c.py")
    with pytest.raises(ValueError, match="backbone_weights: has no meaning"):
        DetectorSettings(config="c.py", diffusion={"path": "a"}, backbone_weights="b")


def test_images_of_no_whole_cells_are_refused_in_one_line(diffusion_folder):
    backbone = FrozenDiffusion(source={"path": str(diffusion_folder)}).eval()
    with pytest.raises(InputError, match="image of 60 x 64 px: .* set pad_size_divisor=8"):
        backbone(torch.zeros(1, 3, 64, 60))


def test_a_grounded_unet_is_no_backbone(tiny_grounded_folder):
    from gen4det.diffusion.pipelines import load_grounded_inpainting

    with pytest.raises(InputError, match="U-Net of 9 input channels"):
        FrozenFeatures(load_grounded_inpainting(ModelSource(path=str(tiny_grounded_folder))))


def test_the_fingerprint_follows_the_numbers_not_the_file(diffusion_folder, tmp_path):
    pipeline = load_text_to_image(ModelSource(path=str(diffusion_folder)))
    first = fingerprint(pipeline)
    pipeline.save_pretrained(tmp_path / "again")
    assert fingerprint(load_text_to_image(ModelSource(path=str(tmp_path / "again")))) == first
    pipeline.vae.encoder.conv_in.bias.data[0] += 1e-3
    assert fingerprint(pipeline) != first


# --- configs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_shipped_configs_describe_detectors(path):
    config = load_config(path, classes=7)
    model = config.model.to_dict()
    on_diffusion = model["backbone"]["type"] == "FrozenDiffusion"
    assert on_diffusion == ("diffusion" in path.stem)
    if on_diffusion:  # without the U-Net; its widths by hand
        widths = [960, 1600, 1920, 3840] if path.stem.startswith("coco") else [144, 160, 320]
        model["backbone"], model["neck"]["in_channels"] = {"type": "ResNet", "depth": 18}, widths
    else:
        model["backbone"]["init_cfg"] = None
    built = build_model(model)
    trained = {n: p.numel() for n, p in built.named_parameters() if not n.startswith("backbone")}
    if path.stem == "coco_diffusion_dino":
        neck = sum(count for name, count in trained.items() if name.startswith("neck"))
        assert neck == pytest.approx(10.98e6, rel=1e-3)  # 1x1 and 3x3 convolutions with their norms
        assert sum(trained.values()) == pytest.approx(30e6, rel=0.02)
        assert (config.batch_size, config.max_iters) == (64, 90_000)
    if "faster" in path.stem:
        assert not built.with_mask


def test_the_miniatures_widths_are_those_of_its_unet():
    folder = CONFIGS.parents[1] / "resources" / "miniature" / "stable-diffusion"
    frozen = FrozenFeatures(load_text_to_image(ModelSource(path=str(folder))))
    assert frozen.channels == [144, 160, 320] and frozen.cell == 4
