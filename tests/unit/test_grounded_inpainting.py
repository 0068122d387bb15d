"""Grounded inpainting: geometry, the loop against diffusers' own, loading. Acceptance checks 1 to 3."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_gligen import pipeline_stable_diffusion_gligen as stock
from diffusers.utils import torch_utils
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gen4det.core.errors import InputError
from gen4det.diffusion import grounded_inpainting as ours
from gen4det.diffusion.grounded_inpainting import (
    MAX_BOXES,
    grounding,
    inpaint,
    relative_corners,
)
from gen4det.diffusion.latent_boxes import latent_mask, painted_share
from gen4det.diffusion.latents import decode, encode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.pipelines import load_grounded_inpainting, load_text_to_image
from gen4det.diffusion.schedulers import SAMPLERS, make_scheduler
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.sources import check_grounded
from gen4det.diffusion.text import TextStates
from tiny_models import tiny_grounded_pipeline

SIZE = (64, 64)
CELLS = (8, 8)
BOXES = [[8, 16, 24, 16], [40, 8, 16, 40]]  # on cell borders: the stock mask is right for these
PHRASES = ["cup", "fish"]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_grounded_pipeline()


@pytest.fixture(scope="module")
def text(pipeline):
    return TextStates(pipeline)


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def paint(pipeline, text, seeds=(1,), boxes=None, phrases=None, scheduler="pndm", steps=3, unet=None, **more):
    """Latents of a batch; each image shows the picture of its seed, or of `pictures`."""
    pictures = more.pop("pictures", seeds)
    boxes = boxes or [BOXES] * len(seeds)
    phrases = phrases or [PHRASES] * len(seeds)
    generators = [image_generator(seed) for seed in seeds]
    masks = np.stack([latent_mask(members, SIZE, CELLS) for members in boxes])
    with torch.no_grad():
        noise = ours.draw_noise(generators, (4, *CELLS))
        images = np.stack([picture(seed) for seed in pictures])
        known = encode(pipeline.vae, images, ours.draw_noise(generators, (4, *CELLS)))
        vectors = [[text.pooled(phrase) for phrase in members] for members in phrases]
        condition = grounding(boxes, vectors, [SIZE] * len(seeds))
        return inpaint(
            unet or pipeline.unet,
            make_scheduler(pipeline.scheduler, scheduler),
            noise,
            known,
            torch.from_numpy(masks)[:, None],
            torch.cat([text(", ".join(members)) for members in phrases]),
            text(""),
            condition,
            steps=steps,
            guidance=more.pop("guidance", 7.5),
            generators=generators,
            **more,
        )


class Watched:
    """Passes calls to a U-Net and keeps what went in."""

    def __init__(self, unet):
        self.unet, self.dtype, self.calls = unet, unet.dtype, []

    def __call__(self, sample, t, **more):
        self.calls.append({"sample": sample.clone(), "t": float(t), **more})
        return self.unet(sample, t, **more)


# --- check 1: mask geometry -----------------------------------------------------------------------


def reference_mask(boxes, image, cells) -> np.ndarray:
    """A cell is painted if it shares an area with a box, found by cutting each cell from the image."""
    mask = np.ones(cells, np.float32)
    tall, wide = image[0] / cells[0], image[1] / cells[1]
    for row in range(cells[0]):
        for column in range(cells[1]):
            for x, y, w, h in boxes:
                across = min(x + w, (column + 1) * wide) - max(x, column * wide)
                down = min(y + h, (row + 1) * tall) - max(y, row * tall)
                if across > 1e-5 * wide and down > 1e-5 * tall:
                    mask[row, column] = 0
    return mask


@st.composite
def scenes(draw):
    height, width = draw(st.integers(20, 700)), draw(st.integers(20, 700))
    cells = draw(st.sampled_from([(64, 64), (8, 8), (16, 24), (5, 3)]))
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        x, y = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
        boxes.append([x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))])
    return boxes, (height, width), cells


@given(scenes())
def test_check_1_latent_mask_is_the_union_of_all_boxes(scene):
    boxes, image, cells = scene
    mask = latent_mask(boxes, image, cells)
    assert mask.dtype == np.float32 and mask.shape == cells
    np.testing.assert_array_equal(mask, reference_mask(boxes, image, cells))


@pytest.mark.parametrize(
    "box", [[3.2, 5.9, 0.01, 0.01], [63.99, 63.99, 0.01, 0.01], [64.5, 10, 1, 1], [-1, -1, 1, 1]]
)
def test_check_1_every_box_paints_a_cell(box):
    """Also slivers, and boxes a pixel beyond the image, which annotation files may have."""
    assert (latent_mask([box], SIZE, CELLS) == 0).sum() == 1


def test_check_1_the_mask_of_a_wide_image_follows_its_sides():
    """Where the stock pipeline mixes up x and y."""
    mask = latent_mask([[300, 0, 100, 50]], (200, 400), (4, 8))
    expected = np.ones((4, 8))
    expected[0, 6:] = 0
    np.testing.assert_array_equal(mask, expected)


def test_check_1_no_box_is_refused():
    with pytest.raises(InputError, match="^grounded inpainting: no box to paint$"):
        latent_mask([], SIZE, CELLS)


@given(scenes())
def test_painted_share_is_the_share_of_pixels(scene):
    boxes, _, _ = scene
    image, cells = (60, 80), (6, 8)  # cells of 10 px
    first, *others = ([int(v) % 50 for v in box[:2]] + [min(v, 30) for v in box[2:]] for box in boxes)
    mask = latent_mask(others or [first], image, cells)
    x, y, w, h = first
    pixels = np.kron(mask, np.ones((10, 10)))[y : y + h, x : x + w]
    assert painted_share(first, image, mask) == pytest.approx(1 - pixels.mean())


def test_grounding_has_relative_corners_and_null_boxes():
    vectors = [[torch.full((1, 5), 2.0)], [torch.full((1, 5), 3.0)] * 2]
    condition = grounding(
        [[[10, 20, 30, 40]], [[0, 0, 80, 10], [70, 5, 12, 5]]], vectors, [(100, 200), (10, 80)]
    )
    assert condition["boxes"].shape == (2, MAX_BOXES, 4)
    torch.testing.assert_close(condition["boxes"][0, 0], torch.tensor([0.05, 0.2, 0.2, 0.6]))
    torch.testing.assert_close(condition["boxes"][1, 1], torch.tensor([0.875, 0.5, 1.0, 1.0]))
    assert condition["masks"].sum(1).tolist() == [1, 2]
    assert condition["positive_embeddings"][:, :3, 0].tolist() == [[2, 0, 0], [3, 3, 0]]
    assert relative_corners([-1, 0, 3, 11], (10, 10)) == [0, 0, 0.2, 1]
    with pytest.raises(ValueError, match="31 boxes"):
        grounding([[[0, 0, 1, 1]] * 31], [[vectors[0][0]] * 31], [SIZE])


# --- the loop against the stock pipeline ------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "beta", "negative"), [("pndm", 1.0, None), ("pndm", 0.3, None), ("ddim", 1.0, "a fish")]
)
def test_equal_to_the_stock_pipeline_where_that_is_correct(
    pipeline, text, monkeypatch, scheduler, beta, negative
):
    """A square image, boxes on cell borders, a scheduler whose initial noise is of unit size. The stock
    pipeline draws from the global generator; we are handed the same draws in the same order."""
    drawn = []

    def recorded(draw):
        def wrapped(*args, **kwargs):
            drawn.append(draw(*args, **kwargs))
            return drawn[-1]

        return wrapped

    checkpoint = pipeline.scheduler
    pipeline.scheduler = make_scheduler(checkpoint, scheduler)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", recorded(torch.randn_like))
        patch.setattr("diffusers.models.autoencoders.vae.randn_tensor", recorded(torch_utils.randn_tensor))
        torch.manual_seed(0)
        expected = pipeline(
            ", ".join(PHRASES),
            num_inference_steps=4,
            gligen_scheduled_sampling_beta=beta,
            gligen_phrases=PHRASES,
            gligen_boxes=[[v / 64 for v in (x, y, x + w, y + h)] for x, y, w, h in BOXES],
            gligen_inpaint_image=Image.fromarray(picture(1)),
            negative_prompt=negative,
            output_type="latent",
        ).images
    pipeline.scheduler = checkpoint
    pipeline.enable_fuser(True)  # the stock pipeline leaves the gated layers as its last step had them
    steps = 4 + (scheduler == "pndm")
    posterior, initial, *fresh = drawn
    assert len(fresh) == steps
    order = iter([initial, posterior, *fresh])
    monkeypatch.setattr(ours, "draw_noise", lambda generators, shape, device="cpu": next(order))
    if negative:
        empty = text("")
        monkeypatch.setitem(text._states, "", text(negative))
        assert not torch.equal(empty, text(""))
    latents = paint(pipeline, text, scheduler=scheduler, steps=4, scheduled_sampling=beta)
    assert next(order, None) is None
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    assert latents.std() > 0.1
    pixels = pipeline.image_processor.postprocess(
        pipeline.vae.decode(expected / pipeline.vae.config.scaling_factor).sample.detach(), output_type="np"
    )
    np.testing.assert_allclose(
        decode(pipeline.vae, latents, "round").numpy() / 255, pixels, atol=0.51 / 255 + 1e-4
    )


def test_our_conventions_are_those_of_the_stock_pipeline(pipeline):
    """Mask and crop of the stock pipeline; where they differ from ours it is wrong."""
    assert isinstance(pipeline, stock.StableDiffusionGLIGENPipeline)
    relative = [relative_corners(box, SIZE) for box in BOXES]
    theirs = pipeline.draw_inpaint_mask_from_boxes(relative, CELLS)
    np.testing.assert_array_equal(theirs, latent_mask(BOXES, SIZE, CELLS))
    tiny = [9, 9, 5, 5]
    assert pipeline.draw_inpaint_mask_from_boxes([relative_corners(tiny, SIZE)], CELLS).min() == 1
    assert latent_mask([tiny], SIZE, CELLS).min() == 0


# --- check 2: one joint pass ------------------------------------------------------------------------


@pytest.mark.parametrize(("scheduler", "more"), [("pndm", 1), ("ddim", 0), ("dpm-solver++", 0)])
def test_check_2_unet_calls_do_not_depend_on_boxes_or_images(pipeline, text, scheduler, more):
    many = [[8 * (i % 8), 8 * (i // 8), 8, 8] for i in range(MAX_BOXES)]
    for boxes in (BOXES[:1], many):
        phrases = ["cup"] * len(boxes)
        unet = Watched(pipeline.unet)
        paint(pipeline, text, (1, 2), [boxes] * 2, [phrases] * 2, scheduler, 3, unet)
        assert len(unet.calls) == 3 + more
        assert all(call["sample"].shape == (4, 9, 8, 8) for call in unet.calls)
        condition = unet.calls[0]["cross_attention_kwargs"]["gligen"]
        assert condition["masks"].sum(1).tolist() == [0, 0, len(boxes), len(boxes)]


def test_boxes_are_shown_in_the_first_share_of_the_steps(pipeline, text):
    unet = Watched(pipeline.unet)
    paint(pipeline, text, scheduler="ddim", steps=5, unet=unet, scheduled_sampling=0.5)
    assert [call.get("cross_attention_kwargs") is None for call in unet.calls] == [False] * 2 + [True] * 3


def test_the_unet_sees_known_latents_and_mask_as_they_are(pipeline, text):
    unet = Watched(pipeline.unet)
    paint(pipeline, text, (1, 2), scheduler="euler", unet=unet)
    mask = torch.from_numpy(latent_mask(BOXES, SIZE, CELLS))
    for call in unet.calls:
        sample = call["sample"]
        assert torch.equal(sample[:, 8], mask.expand(4, -1, -1))
        assert (sample[:, 4:8, mask == 0] == 0).all()
        torch.testing.assert_close(sample[:, 4:8], unet.calls[0]["sample"][:, 4:8])
        torch.testing.assert_close(sample[:2], sample[2:])


def test_low_memory_is_the_same_in_two_calls(pipeline, text):
    unet = Watched(pipeline.unet)
    halves = paint(pipeline, text, (1, 2), scheduler="ddim", unet=unet, low_memory=True)
    assert len(unet.calls) == 6
    torch.testing.assert_close(halves, paint(pipeline, text, (1, 2), scheduler="ddim"), atol=1e-4, rtol=1e-4)


# --- check 3: seeds and the kept part ---------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["checkpoint", *SAMPLERS])
def test_check_3_the_seed_decides_and_seeds_differ_in_boxes(pipeline, text, scheduler):
    first, again = (paint(pipeline, text, (1,), scheduler=scheduler, steps=6) for _ in range(2))
    assert torch.equal(first, again) and torch.isfinite(first).all()
    second = paint(pipeline, text, (2,), scheduler=scheduler, steps=6, pictures=(1,))
    painted = torch.from_numpy(latent_mask(BOXES, SIZE, CELLS)) == 0
    assert (first - second).abs().mean((0, 1))[painted].mean() > 0.05


def test_known_region_is_the_image_at_the_noise_of_each_step(pipeline, text):
    for scheduler in ("pndm", "lms", "euler", "dpm-solver++", "ddim"):
        unet = Watched(pipeline.unet)
        paint(pipeline, text, scheduler=scheduler, steps=4, unet=unet)
        generators = [image_generator(1)]
        draw_noise(generators, (4, *CELLS))
        posterior = draw_noise(generators, (4, *CELLS))
        with torch.no_grad():
            known = encode(pipeline.vae, picture(1)[None], posterior)
        kept = torch.from_numpy(latent_mask(BOXES, SIZE, CELLS)) == 1
        alphas = pipeline.scheduler.alphas_cumprod
        for call in unet.calls:
            fresh = draw_noise(generators, (4, *CELLS))
            low = int(call["t"])
            alpha = alphas[low] + (call["t"] - low) * (alphas[min(low + 1, 999)] - alphas[low])
            if scheduler in ("lms", "euler"):  # these interpolate noise over signal
                ratio = ((1 - alphas) / alphas).sqrt()
                sigma = ratio[low] + (call["t"] - low) * (ratio[min(low + 1, 999)] - ratio[low])
                alpha = 1 / (1 + sigma**2)
            expected = alpha.sqrt() * known + (1 - alpha).sqrt() * fresh
            found = call["sample"][:1, :4]
            torch.testing.assert_close(found[..., kept], expected[..., kept], atol=1e-3, rtol=1e-3)


def test_an_image_does_not_depend_on_its_batch(pipeline, text):
    boxes = [BOXES, [[0, 0, 20, 20]], [[30, 30, 30, 30], [0, 0, 10, 10], [5, 50, 9, 9]]]
    phrases = [PHRASES, ["table"], ["tree", "cup", "tree"]]
    together = paint(pipeline, text, (1, 2, 3), boxes, phrases)
    for i, seed in enumerate((1, 2, 3)):
        alone = paint(pipeline, text, (seed,), boxes[i : i + 1], phrases[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], atol=1e-4, rtol=1e-4)


def test_boxes_phrases_and_prompt_matter(pipeline, text):
    plain = paint(pipeline, text)
    moved = [[[16, 16, 24, 16], BOXES[1]]]
    for other in (
        paint(pipeline, text, phrases=[["fish", "cup"]]),
        paint(pipeline, text, boxes=moved),
        paint(pipeline, text, scheduled_sampling=0.0),
        paint(pipeline, text, guidance=1.0),
    ):
        assert (plain - other).abs().max() > 1e-2


# --- loading ----------------------------------------------------------------------------------------


@pytest.fixture
def copy(tiny_grounded_folder, tmp_path):
    return shutil.copytree(tiny_grounded_folder, tmp_path / "model")


def source(folder):
    return ModelSource(path=str(folder))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_gligen_folder_is_loaded_whole(tiny_grounded_folder):
    loaded, saved = load_grounded_inpainting(source(tiny_grounded_folder)), tiny_grounded_pipeline()
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(loaded, part).state_dict()
        for name, values in getattr(saved, part).state_dict().items():
            torch.testing.assert_close(weights[name], values)
    assert loaded.unet.dtype == torch.float32 and not loaded.unet.training
    assert not any(parameter.requires_grad for parameter in loaded.unet.parameters())
    assert loaded.safety_checker is None


def test_check_1_a_four_channel_unet_is_refused(tiny_pipeline_folder, copy):
    message = (
        r"unet: 4 input channels, expected 9 \(latents, known latents, mask\); this is no inpainting model$"
    )
    for load in (check_grounded, load_grounded_inpainting):
        with pytest.raises(InputError, match=message):
            load(source(tiny_pipeline_folder))
    edit(copy / "unet" / "config.json", in_channels=4)
    with pytest.raises(InputError, match=message):
        load_grounded_inpainting(source(copy))


@pytest.mark.parametrize("attention", ["default", "gated-text-image"])
def test_a_unet_without_boxes_and_phrases_is_refused(copy, attention):
    edit(copy / "unet" / "config.json", attention_type=attention)
    with pytest.raises(InputError, match=f"unet: attention_type '{attention}', expected 'gated'"):
        load_grounded_inpainting(source(copy))


def test_weights_without_position_net_are_refused(copy):
    from safetensors.torch import load_file, save_file

    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "position_net" not in k}, file)
    with pytest.raises(InputError, match="unet: 8 weights are missing, e.g. position_net") as caught:
        load_grounded_inpainting(source(copy))
    assert "\n" not in str(caught.value)


def test_pipelines_are_not_mixed_up(tiny_grounded_folder, copy):
    with pytest.raises(
        InputError, match="holds a StableDiffusionGLIGENPipeline, expected a StableDiffusionPipe"
    ):
        load_text_to_image(source(tiny_grounded_folder))
    edit(copy / "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    with pytest.raises(
        InputError, match="holds a StableDiffusionInpaintPipeline, expected a StableDiffusionGLI"
    ):
        load_grounded_inpainting(source(copy))
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be loaded"):
        check_grounded(source(copy))
