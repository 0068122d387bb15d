"""Attributes, weights of cells, perceptive loss and head. Checks 4 and 6 to 8 of the specification."""

import functools

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from transformers import CLIPTextConfig, CLIPTextModel

from gen4det.core.errors import InputError
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.finetuning import NoisePrediction
from gen4det.engines.detdiffusion import attributes as easy_or_hard
from gen4det.engines.detdiffusion.attributes import (
    attributes_of,
    difficulty,
    load_attributes,
    read_detections,
)
from gen4det.engines.detdiffusion.fit_attributes import share_of_easy
from gen4det.engines.detdiffusion.fit_generator import share
from gen4det.engines.detdiffusion.perception import PerceptionLoss, PerceptiveHead, Targets, mask_loss
from gen4det.engines.detdiffusion.reweighting import foreground_weights
from gen4det.engines.detdiffusion.samples import shrunk
from gen4det.engines.detdiffusion.settings import AttributeSettings, GeneratorSettings
from gen4det.engines.settings import AskedDetector
from real_architectures import clip_text_encoder, parameters, unet
from tiny_models import tiny_unet

NOISE = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

# --- attributes -------------------------------------------------------------------------------------

LABEL = {"id": 1, "bbox": [0, 0, 10, 10], "category_id": 1}
HALF = [1, 0.9, 0, 0, 10, 5]  # overlaps by exactly a half
OVER = [1, 0.9, 0, 0, 10, 5.01]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([HALF], "hard"),
        ([OVER], "easy"),
        ([[1, 0.5, *OVER[2:]]], "hard"),  # score exactly gamma
        ([[1, 0.51, *OVER[2:]]], "easy"),
        ([], "hard"),
    ],
)
def test_easy_is_what_a_detection_above_gamma_overlaps_by_more_than_beta(found, expected):
    assert difficulty([LABEL], found, AttributeSettings()) == [expected]


def test_one_detection_may_make_two_objects_easy_and_classes_count_where_asked():
    twins = [LABEL, LABEL | {"bbox": [0, 0, 9, 10], "category_id": 2}]
    found = [[1, 0.9, 0, 0, 10, 10]]
    assert difficulty(twins, found, AttributeSettings()) == ["easy", "easy"]
    assert difficulty(twins, found, AttributeSettings(same_class=True)) == ["easy", "hard"]


def test_higher_thresholds_never_turn_hard_into_easy():
    rng = np.random.default_rng(3)
    labels = [LABEL | {"bbox": [*rng.uniform(0, 50, 2), *rng.uniform(5, 30, 2)]} for _ in range(60)]
    found = [[1, rng.random(), *rng.uniform(0, 50, 2), *rng.uniform(5, 30, 2)] for _ in range(200)]
    hard = set()
    for threshold in (0.0, 0.2, 0.4, 0.6, 0.8):
        settings = AttributeSettings(min_score=threshold, min_iou=threshold)
        now = {i for i, it in enumerate(difficulty(labels, found, settings)) if it == "hard"}
        assert hard <= now
        hard = now
    assert 0 < len(hard)


def test_crowds_have_no_attribute_and_stuff_only_if_asked_for():
    data = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 9, "name": "sky", "isthing": 0}],
        "annotations": [
            LABEL | {"image_id": 1},
            LABEL | {"id": 2, "image_id": 1, "iscrowd": 1},
            LABEL | {"id": 3, "image_id": 1, "category_id": 9},
            LABEL | {"id": 4, "image_id": 2},
        ],
    }
    assert attributes_of(data, {"1": [OVER]}, AttributeSettings()) == {1: "easy", 4: "hard"}
    with_stuff = attributes_of(data, {"1": [OVER]}, AttributeSettings(stuff="hard"))
    assert with_stuff == {1: "easy", 3: "hard", 4: "hard"}


def test_attributes_of_another_detector_threshold_or_split_are_refused(tmp_path):
    asked, settings = AskedDetector(detector="yolo"), AttributeSettings()
    facts = easy_or_hard.about(asked, settings, "a" * 8)
    easy_or_hard.write_attributes(tmp_path, {5: "easy"}, facts)
    load = functools.partial(load_attributes, tmp_path)
    assert load(asked, settings, training_hash="a" * 8) == {5: "easy"}
    for change, what in [
        ((AskedDetector(detector="detr"), settings, "a" * 8), "another detector"),
        ((AskedDetector(detector="yolo", seed=1), settings, "a" * 8), "another detector"),
        ((asked, AttributeSettings(min_score=0.4), "a" * 8), "other thresholds"),
        ((asked, AttributeSettings(min_iou=0.4), "a" * 8), "other thresholds"),
        ((asked, settings, "b" * 8), "another training split"),
    ]:
        with pytest.raises(InputError, match=what):
            load(change[0], change[1], training_hash=change[2])
    path = tmp_path / "detections.json"
    path.write_text('{"of": {"split": "b"}, "split": "b", "detector": "d", "detections": {}}')
    assert read_detections(path, training_hash="b")["detector"] == "d"
    with pytest.raises(InputError, match="another training split"):
        read_detections(path, training_hash="a")


def test_a_share_of_easy_objects_that_tells_little_is_said(caplog):
    assert share_of_easy({1: "easy", 2: "hard", 3: "easy", 4: "easy"}) == 0.75
    assert not [it for it in caplog.records if it.levelname == "WARNING"]
    assert share_of_easy({1: "hard"}) == 0 and "tell little" in caplog.text


# --- weights of cells -------------------------------------------------------------------------------


def test_small_boxes_weigh_more_than_large_ones_and_the_mean_is_one():
    weights = foreground_weights([(0.25, 0.25, 0.5, 0.5)], (32, 32))
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    assert weights[8:16, 8:16] == pytest.approx(2.90096, abs=1e-5)
    assert weights[0, 0] == pytest.approx(0.87327, abs=1e-5)
    assert np.array_equal(foreground_weights([], (5, 7)), np.ones((5, 7), np.float32))
    two = foreground_weights([(0, 0, 1, 1), (0, 0, 0.25, 0.25)], (32, 32))
    assert two[0, 0] > two[31, 31]
    later = foreground_weights([(0, 0, 0.25, 0.25), (0, 0, 1, 1)], (32, 32))
    assert np.ptp(later) == 0  # the large box lies over the small one


# --- perceptive loss --------------------------------------------------------------------------------


def targets(masks: torch.Tensor) -> Targets:
    images, classes = masks.shape[:2]
    return Targets(
        torch.arange(classes).expand(images, -1), masks, torch.ones(images, classes, dtype=torch.bool)
    )


def setup(masks=None):
    """A head on random features of two images, and what it should find."""
    torch.manual_seed(0)
    head = PerceptiveHead([8, 16], 3, 16)
    features = [torch.randn(2, 8, 8, 8), torch.randn(2, 16, 4, 4)]
    masks = (torch.rand(2, 3, 8, 8) > 0.5).float() if masks is None else masks
    return head, features, targets(masks)


def test_the_loss_is_weighted_by_the_root_of_each_samples_own_signal():
    head, features, wanted = setup(torch.ones(2, 3, 8, 8))
    loss = PerceptionLoss(head, NOISE.alphas_cumprod, 0.01)
    features = [level[:1].expand(2, -1, -1, -1) for level in features]
    mixed = loss(torch.tensor([0, 999]), features, wanted)
    kept = NOISE.alphas_cumprod[[0, 999]].sqrt()
    assert float(mixed[0] / mixed[1]) == pytest.approx(float(kept[0] / kept[1]), rel=1e-5)
    assert float(mixed[0] / mixed[1]) == pytest.approx(14.6, abs=0.1)
    expected = 0.01 * kept * mask_loss(head(features, wanted.classes), wanted)
    torch.testing.assert_close(mixed, expected)


def test_masks_are_judged_by_cross_entropy_and_dice_of_the_classes_an_image_shows():
    _, _, wanted = setup()
    logits = torch.randn(2, 3, 8, 8)
    found = mask_loss(logits, wanted)
    for image in range(2):
        losses = []
        for p, g in zip(logits[image].sigmoid().double(), wanted.masks[image].double(), strict=True):
            entropy = -(g * p.log() + (1 - g) * (1 - p).log()).mean()
            losses.append(entropy + 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1))
        assert float(found[image]) == pytest.approx(float(sum(losses) / 3), rel=1e-5)
    perfect = mask_loss(60 * (wanted.masks - 0.5), wanted)
    assert float(perfect.max()) < 1e-4
    padded = Targets(wanted.classes, wanted.masks, torch.tensor([[True, False, False], [False] * 3]))
    assert float(mask_loss(logits, padded)[1]) == 0
    one = mask_loss(logits[:, :1], targets(wanted.masks[:, :1]))
    torch.testing.assert_close(mask_loss(logits, padded)[0], one[0])


def test_empty_masks_and_half_precision_give_finite_losses_and_gradients():
    head, features, wanted = setup(torch.zeros(2, 3, 8, 8))
    loss = PerceptionLoss(head, NOISE.alphas_cumprod, 1.0)
    with torch.autocast("cpu", torch.float16):
        found = loss(torch.tensor([0, 999]), features, wanted)
    found.sum().backward()
    assert found.dtype == torch.float32 and torch.isfinite(found).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    assert torch.isfinite(mask_loss(torch.full((2, 3, 8, 8), -6e4).half(), wanted)).all()


@pytest.mark.parametrize("channels", [8, 16, 32, 448])
def test_a_single_image_whose_last_level_is_one_cell_is_seen_there(channels):
    torch.manual_seed(0)
    head = PerceptiveHead([8, 16], 3, channels).train()
    level, wanted = torch.randn(1, 16, 1, 1, requires_grad=True), targets(torch.ones(1, 3, 4, 4))
    loss = PerceptionLoss(head, NOISE.alphas_cumprod, 1.0)
    found = loss(torch.tensor([10]), [torch.randn(1, 8, 4, 4), level], wanted)
    found.sum().backward()
    assert torch.isfinite(found).all() and level.grad.abs().sum() > 0
    cells = torch.randn(2, channels, 1, 1)
    first, other = head.smooth[1](cells)
    assert not torch.allclose(first, other)  # groups of one number would be zero, whatever it was
    torch.testing.assert_close(head.smooth[1](cells[:1])[0], first)  # whatever else is in the batch


def test_on_larger_maps_the_head_normalises_as_torchs_group_norm():
    head = PerceptiveHead([8], 3, 32)
    convolution, norm, activation = head.smooth[0]
    maps = torch.randn(2, 32, 2, 2)
    expected = activation(torch.nn.GroupNorm(32, 32)(convolution(maps)))
    assert isinstance(activation, torch.nn.SiLU) and torch.equal(head.smooth[0](maps), expected)


def test_lambda_zero_leaves_gradients_as_they_were_and_a_larger_one_reaches_unet_and_head():
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text, t = torch.randn(2, 5, 16), torch.tensor([10, 500])
    wanted = targets((torch.rand(2, 3, 8, 8) > 0.5).float())
    gradients = {}
    for weight in (None, 0.0, 0.5):
        model = tiny_unet(layers_per_block=1).requires_grad_(True)
        taps = FeatureTaps(model, "up")
        torch.manual_seed(0)
        head = PerceptiveHead(taps.channels(), 3, 16)
        second = None
        if weight is not None:
            loss = PerceptionLoss(head, NOISE.alphas_cumprod, weight)
            second = functools.partial(lambda loss, prediction, t, features: loss(t, features, wanted), loss)
        found = NoisePrediction(NOISE, taps=taps if second else None, second=second)(
            model, latents, text, noise, t
        )
        found.total.backward()
        gradients[weight] = [p.grad.clone() for p in model.parameters()]
        if weight:
            assert all(p.grad.abs().sum() > 0 for p in head.parameters())
    same = zip(gradients[None], gradients[0.0], strict=True)
    assert all(torch.allclose(first, other, atol=1e-7) for first, other in same)
    pairs = zip(gradients[None], gradients[0.5], strict=True)
    assert any(not torch.allclose(first, other, atol=1e-5) for first, other in pairs)


def test_the_head_on_stable_diffusion_has_eleven_to_fourteen_million_parameters():
    with torch.device("meta"):
        head = PerceptiveHead([320, 640, 1280, 1280], 80, 448)
        semantic = PerceptiveHead([320, 640, 1280, 1280], 171, 448)
    print(parameters(head), parameters(semantic))
    assert 11e6 < parameters(head) < parameters(semantic) < 14e6
    assert parameters(head) / parameters(unet("stable-diffusion-1-5")) == pytest.approx(0.0145, abs=0.001)
    assert FeatureTaps(unet("stable-diffusion-1-5"), "up").channels() == [320, 640, 1280, 1280]


def test_65538_words_add_fifty_million_parameters_to_the_full_size_text_encoder():
    plain, enlarged = clip_text_encoder(), clip_text_encoder(65_538)
    assert parameters(plain) == 123_060_480
    assert parameters(enlarged) - parameters(plain) == 65_538 * 768
    states = enlarged(torch.zeros(2, 77, dtype=torch.int64, device="meta")).last_hidden_state
    assert states.shape == (2, 77, 768)


def test_an_object_that_vanishes_in_the_latents_keeps_the_cell_it_covers_most():
    mask = np.zeros((64, 64), bool)
    mask[9:12, 17:19] = True
    small = shrunk(mask, (8, 8))
    assert small.sum() == 1 and small[1, 2]
    mask[:32, :32] = True
    assert shrunk(mask, (8, 8))[:4, :4].all() and shrunk(mask, (8, 8)).sum() == 16


# --- learning rates ---------------------------------------------------------------------------------


def test_layers_of_the_text_encoder_learn_slower_the_deeper_they_lie_and_words_slowest():
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 20}
    text = CLIPTextModel(CLIPTextConfig(num_hidden_layers=12, **shape))
    found = {
        name: share(f"1.{name}", parameter, settings=GeneratorSettings(), layers=12, text=1)
        for name, parameter in text.named_parameters()
    }
    (words,) = (it for name, it in found.items() if "token_embedding" in name)
    (positions,) = (it for name, it in found.items() if "position_embedding" in name)
    assert words == pytest.approx((0.75 * 0.95**13, 1)) and positions == pytest.approx((0.75 * 0.95**13, 0))
    assert {it for name, it in found.items() if "final_layer_norm" in name} == {(0.75, 0.0)}
    for layer in range(12):
        inside = {it for name, it in found.items() if f"layers.{layer}." in name}
        assert inside == {(0.75 * 0.95 ** (12 - layer), decay) for decay in (0.0, 1.0)}
    matrix = torch.zeros(2, 2)
    assert share("0.layers.3.weight", matrix, settings=GeneratorSettings(), layers=12, text=1) == (1.0, 1.0)
