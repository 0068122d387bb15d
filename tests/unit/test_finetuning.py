"""Losses and samples of a generator's fine-tuning, against formulas written out and diffusers' own."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.training_utils import compute_snr
from tiny_detector import tiny_dataset, write_images

from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.diffusion import training_crops
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.finetuning import NoisePrediction
from gen4det.diffusion.replay import add_noise, features_of, features_of_both, noise_schedule
from gen4det.diffusion.training_crops import (
    ObjectCrops,
    Window,
    fit_square,
    object_window,
    overlaps,
)
from gen4det.diffusion.words import caption_of
from tiny_models import tiny_unet

SHAPE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
T = torch.tensor([0, 1, 500, 999])


def batch(seed=0):
    draw = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=draw)
    return latents, torch.randn(4, 77, 16, generator=draw), noise


# --- noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DDPMScheduler, DPMSolverMultistepScheduler])
def test_noising_is_ddpms_whatever_scheduler_a_model_came_with(kind):
    latents, _, noise = batch()
    schedule = noise_schedule(kind(**SHAPE))
    expected = DDPMScheduler(**SHAPE).add_noise(latents, noise, T)
    torch.testing.assert_close(add_noise(schedule, latents, noise, T), expected)
    assert float(schedule[1]) == pytest.approx(0.998296, abs=1e-6)
    torch.testing.assert_close(
        add_noise(schedule, latents, noise, 1),
        0.998296**0.5 * latents + 0.04128 * noise,
        rtol=1e-4,
        atol=1e-4,
    )


def test_replayed_features_are_those_of_one_evaluation():
    unet = tiny_unet(layers_per_block=1, block_out_channels=(16, 32, 48, 64))
    latents, text, _ = batch()
    negative = torch.randn(1, 77, 16)
    taps = FeatureTaps(unet, "layers")
    single, empty = features_of(taps, latents, 1, text), features_of(taps, latents, 1, negative)
    both = features_of_both(taps, latents, 1, text, negative)
    assert [level.shape[1] for level in both] == [2 * channels for channels in taps.channels()]
    # Of each tap first the channels without, then those with prompt: the first tap is conv_in, 16 channels.
    torch.testing.assert_close(both[0][:, :16], empty[0][:, :16], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[0][:, 32:48], empty[0][:, 16:32], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[0][:, 48:64], single[0][:, 16:32], atol=1e-5, rtol=1e-5)
    assert not single[0].requires_grad


# --- losses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_the_loss_is_diffusers_recipe(kind, min_snr):
    """As the training scripts of diffusers compute it, image by image."""
    unet, (latents, text, noise) = tiny_unet(layers_per_block=1), batch()
    scheduler = DDPMScheduler(**SHAPE, prediction_type=kind)
    found = NoisePrediction(scheduler, min_snr=min_snr)(unet, latents, text, noise, T)
    predicted = unet(scheduler.add_noise(latents, noise, T), T, text).sample
    target = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, T)
    error = (predicted - target).square().mean((1, 2, 3))
    if min_snr is not None:
        snr = compute_snr(scheduler, T)
        error = error * torch.minimum(snr, torch.tensor(min_snr)) / (snr + (kind == "v_prediction"))
    torch.testing.assert_close(found.total, error.mean(), rtol=1e-4, atol=1e-5)
    assert found.second is None and torch.equal(found.noise, found.total)


def test_cells_may_weigh_more_than_others():
    unet, (latents, text, noise) = tiny_unet(layers_per_block=1), batch()
    loss = NoisePrediction(DDPMScheduler(**SHAPE))
    weights = torch.zeros(4, 1, 8, 8)
    weights[:, :, :2] = 4  # a quarter of the cells, so that the mean weight is one
    found = loss(unet, latents, text, noise, T, weights=weights)
    predicted = unet(add_noise(loss.schedule, latents, noise, T), T, text).sample
    torch.testing.assert_close(found.total, (predicted - noise)[:, :, :2].square().mean())


def test_a_second_loss_sees_prediction_time_steps_and_features_and_trains_the_unet():
    unet, (latents, text, noise) = tiny_unet(layers_per_block=1).requires_grad_(True), batch()
    scheduler, seen = DDPMScheduler(**SHAPE), []

    def second(prediction, t, features):
        seen.append((prediction, t, features))
        return 0.01 * scheduler.alphas_cumprod[t].sqrt() * features[-1].square().mean((1, 2, 3))

    loss = NoisePrediction(scheduler, taps=FeatureTaps(unet, "up"), second=second)
    found = loss(unet, latents, text, noise, T)
    found.total.backward()
    ((prediction, t, features),) = seen
    assert prediction.shape == latents.shape and torch.equal(t, T)
    assert [level.shape[1:] for level in features] == [(16, 8, 8), (16, 4, 4), (32, 2, 2), (32, 1, 1)]
    torch.testing.assert_close(found.total, found.noise + found.second)
    deep = unet.up_blocks[0].resnets[-1].conv2.weight.grad.clone()
    alone = tiny_unet(layers_per_block=1).requires_grad_(True)
    NoisePrediction(scheduler)(alone, latents, text, noise, T).total.backward()
    assert not torch.allclose(deep, alone.up_blocks[0].resnets[-1].conv2.weight.grad)


def test_a_unet_that_predicts_something_else_is_refused():
    with pytest.raises(InputError, match="predicts 'sample'"):
        NoisePrediction(DDPMScheduler(**SHAPE, prediction_type="sample"))


def test_noise_and_time_steps_are_a_function_of_the_seed():
    loss = NoisePrediction(DDPMScheduler(**SHAPE))
    draws = [loss.draw((512, 4, 2, 2), torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert 0 <= draws[0][1].min() < 20 and 980 < draws[0][1].max() < loss.steps == 1000


# --- crops and captions -----------------------------------------------------------------------------


def test_a_window_holds_the_union_of_one_or_two_objects():
    boxes, size = [[10, 20, 30, 10], [45, 25, 10, 10], [80, 70, 12, 20]], (100, 100)
    rng, counts, ratios = np.random.default_rng(0), set(), []
    for _ in range(500):
        window = object_window(boxes, size, rng)
        assert 0 <= window.left < window.right <= 100 and 0 <= window.top < window.bottom <= 100
        inside = [
            window.left <= x and window.top <= y and x + w <= window.right and y + h <= window.bottom
            for x, y, w, h in boxes
        ]
        assert any(inside)
        counts.add(sum(inside))
        if inside == [True, False, False] and window.right < 100 and window.bottom < 100:
            ratios.append((window.right - window.left) / 30)
    assert {1, 2} <= counts
    assert 1 <= min(ratios) < 1.1 and 1.5 < max(ratios) <= 2.1


def test_captions_name_each_shown_category_once():
    assert caption_of(["cup", "fish", "cup"]) == "a photograph of cup and fish"
    window = Window(10, 10, 20, 20)
    assert overlaps([19, 0, 5, 11], window) and not overlaps([20, 0, 5, 11], window)


def test_a_crop_is_scaled_to_fit_and_filled_with_grey():
    square = fit_square(np.full((10, 20, 3), 255, np.uint8), 32)
    assert square.shape == (3, 32, 32) and square.dtype == np.float32
    assert (square[:, :16] == 1).all() and (square[:, 16:] == 0).all()


def test_samples_are_a_function_of_their_number(tmp_path):
    dataset = tiny_dataset(tmp_path)
    annotations = dataset.train.load()
    crops, again = (ObjectCrops(annotations, dataset.train.images, side=32, seed=3) for _ in range(2))
    numbers = [5, 3 * len(crops) + 1, 0]
    for number in numbers:
        first, second = crops[number], again[number]
        assert torch.equal(first["pixels"], second["pixels"]) and first["caption"] == second["caption"]
        assert first["pixels"].shape == (3, 32, 32) and first["pixels"].abs().max() <= 1
        names = first["caption"].removeprefix("a photograph of ").split(" and ")
        assert set(names) <= {"square", "disc", "ring"} and len(set(names)) == len(names)
    other = ObjectCrops(annotations, dataset.train.images, side=32, seed=4)
    assert not torch.equal(other[5]["pixels"], crops[5]["pixels"])


def test_every_image_comes_once_in_each_pass_and_captions_may_be_left_out(tmp_path):
    data = write_images(tmp_path / "x.zip", [[3]] * 9, seed=1)
    crops = ObjectCrops(data, ImageStore(tmp_path / "x.zip"), side=16, seed=0, without_caption=0.5)
    read = []
    original = crops.images.image
    crops.images.image = lambda name: read.append(name) or original(name)
    captions = [crops[number]["caption"] for number in range(18)]
    assert sorted(read[:9]) == sorted(read[9:]) == sorted(image["file_name"] for image in data["images"])
    assert read[:9] != read[9:]
    assert set(captions) == {"", "a photograph of square"}
    data["annotations"] = [label | {"iscrowd": 1} for label in data["annotations"]]
    bare = {"images": data["images"], "annotations": [], "categories": data["categories"]}
    for nothing in (data, bare):
        with pytest.raises(
            InputError, match=r"^train\.json: none of 9 images shows an object .*; label some$"
        ):
            ObjectCrops(nothing, ImageStore(tmp_path / "x.zip"), side=16, seed=0, source="train.json")


def test_images_without_a_box_are_left_out_and_no_crop_is_of_one(tmp_path):
    data = write_images(tmp_path / "x.zip", [[3], [7], [20], [3]], seed=1)
    crowd, empty = data["images"][1]["id"], data["images"][2]["id"]
    data["annotations"] = [it for it in data["annotations"] if it["image_id"] != empty]
    for label in data["annotations"]:
        label["iscrowd"] = int(label["image_id"] == crowd)
    crops = ObjectCrops(data, ImageStore(tmp_path / "x.zip"), side=16, seed=0)
    assert len(crops) == 2
    assert {crops[number]["caption"] for number in range(8)} == {"a photograph of square"}


def test_of_a_thousand_annotations_crops_hold_their_objects_and_captions_name_all_that_is_in_them(
    tmp_path, monkeypatch
):
    """Windows by brute force: the union of an anchor and its nearest neighbour, one to two times its side."""
    rng, names = np.random.default_rng(5), {1: "cup", 2: "salt and pepper, ground", 3: "fish"}
    images, labels = [], []
    with ShardWriter(tmp_path / "x.zip") as writer:
        for number in range(50):
            height, width = (int(it) for it in rng.integers(40, 90, 2))
            images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            writer.add(f"{number}.png", encode_image(np.zeros((height, width, 3), np.uint8), "png"))
            for _ in range(rng.integers(1, 5)):
                x, y = rng.uniform(0, width - 8), rng.uniform(0, height - 8)
                w, h = rng.uniform(4, width - x), rng.uniform(4, height - y)
                category = int(rng.integers(1, 4))
                labels.append({"image_id": number, "category_id": category, "bbox": [x, y, w, h]})
    categories = [{"id": key, "name": name} for key, name in names.items()]
    data = {"images": images, "annotations": labels, "categories": categories}
    crops = ObjectCrops(data, ImageStore(tmp_path / "x.zip"), side=32, seed=0)
    windows = []
    drawn = training_crops.object_window
    monkeypatch.setattr(
        training_crops,
        "object_window",
        lambda boxes, size, rng, **more: (
            windows.append((boxes, drawn(boxes, size, rng, **more))) or windows[-1][1]
        ),
    )
    kinds = set()
    for number in range(1000):
        sample = crops[number]
        boxes, window = windows[-1]
        assert sample["pixels"].shape == (3, 32, 32) and sample["pixels"].abs().max() <= 1
        found = {count for count in (1, 2) if any(it[count - 1] for it in _around(boxes, window))}
        assert found, (boxes, window)
        kinds |= found if len(found) == 1 else set()
        of_image = [it for it in labels if it["bbox"] in boxes]
        shown = {names[it["category_id"]] for it in of_image if _common_area(it["bbox"], window) > 0}
        orders = itertools.permutations(shown)
        assert sample["caption"] in {f"a photograph of {' and '.join(order)}" for order in orders}
    assert kinds == {1, 2}


def _around(boxes, window):
    """For each anchor whether one object, and whether two, may have made a window."""
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    for anchor in range(len(boxes)):
        order = np.argsort(np.hypot(*(centres - centres[anchor]).T), kind="stable")
        yield [_may_hold(corners[order[:count]], window) for count in (1, 2)]


def _may_hold(corners, window) -> bool:
    """Whether objects lie in a window of one to two times their side, cut right and below or not."""
    (left, top), (right, bottom) = corners[:, :2].min(0), corners[:, 2:].max(0)
    side = max(right - left, bottom - top)
    inside = window.left <= left and window.top <= top and window.right >= right - 1
    inside = inside and window.bottom >= bottom - 1
    return inside and max(window.right - window.left, window.bottom - window.top) <= 2 * side + 2


def _common_area(box, window) -> float:
    x, y, w, h = box
    wide = min(x + w, window.right) - max(x, window.left)
    high = min(y + h, window.bottom) - max(y, window.top)
    return max(wide, 0) * max(high, 0)
