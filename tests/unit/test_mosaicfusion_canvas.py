"""Denoising a canvas in regions: acceptance checks 2 to 5, and check 6 where it needs the loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from gen4det.diffusion.guidance import guided_noise
from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.schedulers import SAMPLERS, make_scheduler
from gen4det.diffusion.text import TextStates
from gen4det.engines.mosaicfusion.canvas import (
    CanvasRegion,
    blend_shares,
    blend_weights,
    denoise,
)
from tiny_models import tiny_pipeline

PROMPTS = ["a photo of a single cup", "a photo of a fish", "the table", "christmas tree"]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(layers=1)


@pytest.fixture(scope="module")
def text(pipeline):
    return TextStates(pipeline)


class CountingUNet:
    """Passes calls on and keeps what went in and out."""

    dtype = torch.float32

    def __init__(self, call):
        self.call = call
        self.inputs, self.outputs, self.times = [], [], []

    def __call__(self, sample, t, encoder_hidden_states, return_dict):
        output = self.call(sample, t, encoder_hidden_states)
        self.inputs.append(sample.clone())
        self.outputs.append(output.clone())
        self.times.append(float(t))
        return (output,)


def counting(pipeline):
    return CountingUNet(lambda x, t, states: pipeline.unet(x, t, states, return_dict=False)[0])


def four_regions(states, canvases=1, maps=None):
    """2x2 regions on a canvas of 14x18 cells that overlap by two cells."""
    extents = [(slice(0, 8), slice(0, 10)), (slice(0, 8), slice(8, 18)),
               (slice(6, 14), slice(0, 10)), (slice(6, 14), slice(8, 18))]  # fmt: skip
    return [
        CanvasRegion(rows, columns, state.expand(canvases, -1, -1), maps[i] if maps else None)
        for i, ((rows, columns), state) in enumerate(zip(extents, states, strict=True))
    ]


def noise_of(*seeds, shape=(4, 14, 18)):
    return draw_noise([image_generator(seed) for seed in seeds], shape)


def sample(pipeline, text, noise, regions, scheduler="lms", steps=4, unet=None, **options):
    with torch.no_grad():
        return denoise(
            unet or pipeline.unet,
            make_scheduler(pipeline.scheduler, scheduler),
            noise,
            regions,
            text(""),
            steps=steps,
            guidance=7.5,
            **options,
        )


# --- check 2: blend weights ---------------------------------------------------------------------


def test_check_2_golden_gaussian_weights():
    weights = blend_weights(51, 68, "gaussian")
    assert weights.max().item() == pytest.approx(15.872528, rel=1e-6)
    assert weights[0, 0].item() == pytest.approx(5.1731e-10, rel=1e-4)
    assert weights.min() > 0
    torch.testing.assert_close(weights, weights.flip(0, 1))


def test_check_2_golden_share_of_two_neighbours():
    regions = [
        CanvasRegion(slice(0, 51), slice(0, 68), torch.empty(0)),
        CanvasRegion(slice(0, 51), slice(60, 128), torch.empty(0)),
    ]
    left, right = blend_shares((51, 128), regions, "gaussian", torch.device("cpu"))
    golden = [0.989, 0.962, 0.875, 0.657, 0.343, 0.125, 0.038, 0.011]
    np.testing.assert_allclose(left[20, 60:], golden, atol=5e-4)
    torch.testing.assert_close(left[:, 60:] + right[:, :8], torch.ones(51, 8))
    assert (left[:, :60] == 1).all() and (right[:, 8:] == 1).all()


@pytest.mark.parametrize("blend", ["gaussian", "constant", "quartic"])
def test_check_2_every_cell_has_weight(blend):
    regions = four_regions([torch.empty(1, 77, 16)] * 4)
    shares = blend_shares((14, 18), regions, blend, torch.device("cpu"))
    total = torch.zeros(14, 18)
    for region, share in zip(regions, shares, strict=True):
        assert share.dtype == torch.float32 and share.min() > 0
        total[region.window] += share
    torch.testing.assert_close(total, torch.ones(14, 18))
    for cells in (1, 2, 63, 84):
        assert blend_weights(cells, cells, blend).min() > 0


def test_check_2_a_half_precision_model_is_blended_in_float32():
    """Noise 1 from every region must be 1 after blending, to single precision, everywhere."""
    unet = CountingUNet(lambda x, t, states: torch.ones_like(x))
    unet.dtype = torch.float16
    regions = four_regions([torch.zeros(1, 77, 16)] * 4)
    merged = []
    scheduler = SimpleNamespace(
        set_timesteps=lambda steps, device: None,
        timesteps=[torch.tensor(1)],
        init_noise_sigma=1.0,
        scale_model_input=lambda x, t: x,
        step=lambda noise, t, x: (merged.append(noise), SimpleNamespace(prev_sample=x))[1],
    )
    denoise(unet, scheduler, noise_of(0), regions, torch.zeros(1, 77, 16), steps=1, guidance=7.5)
    assert unet.inputs[0].dtype == torch.float16 and merged[0].dtype == torch.float32
    torch.testing.assert_close(merged[0], torch.ones(1, 4, 14, 18))


# --- check 3: merging ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["lms", "pndm", "ddim"])
def test_check_3_one_region_is_stable_diffusion(pipeline, text, scheduler):
    noise = noise_of(5, shape=(4, 8, 12))
    region = CanvasRegion(slice(0, 8), slice(0, 12), text(PROMPTS[0]))
    ours = sample(pipeline, text, noise, [region], scheduler, steps=6)
    reference = tiny_pipeline(layers=1)
    reference.scheduler = make_scheduler(pipeline.scheduler, scheduler)
    theirs = reference(
        PROMPTS[0], height=64, width=96, num_inference_steps=6, guidance_scale=7.5, latents=noise.clone(),
        output_type="latent",
    ).images  # fmt: skip
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("blend", ["gaussian", "constant", "quartic"])
def test_check_3_constant_regions_blend_to_weighted_means(blend):
    regions = four_regions([torch.full((1, 77, 16), float(value)) for value in (1, 2, 3, 4)])
    unet = CountingUNet(lambda x, t, states: states[:, :1, :1, None].expand_as(x))
    merged = []
    scheduler = SimpleNamespace(
        set_timesteps=lambda steps, device: None,
        timesteps=[torch.tensor(1)],
        init_noise_sigma=1.0,
        scale_model_input=lambda x, t: x,
        step=lambda noise, t, x: (merged.append(noise), SimpleNamespace(prev_sample=x))[1],
    )
    denoise(unet, scheduler, noise_of(0), regions, torch.zeros(1, 77, 16), steps=1, guidance=2.0, blend=blend)
    actual = merged[0][0, 0].double()
    weighted, total = torch.zeros(14, 18).double(), torch.zeros(14, 18).double()
    for value, region in zip((2, 4, 6, 8), regions, strict=True):  # guidance 2, empty prompt 0
        weights = blend_weights(8, 10, blend)
        weighted[region.window] += value * weights
        total[region.window] += weights
    torch.testing.assert_close(actual, weighted / total, atol=1e-5, rtol=1e-5)
    for value, corner in zip((2, 4, 6, 8), ((0, 0), (0, 17), (13, 0), (13, 17)), strict=True):
        assert actual[corner] == pytest.approx(value)


def test_check_3_a_prompt_changes_its_own_region_only_at_the_first_step(pipeline, text):
    outputs = []
    for last in ("christmas tree", "a fish"):
        unet = counting(pipeline)
        states = [text(prompt) for prompt in (*PROMPTS[:3], last)]
        sample(pipeline, text, noise_of(0), four_regions(states), steps=2, unet=unet)
        outputs.append(unet.outputs)
    for region in range(3):
        assert torch.equal(outputs[0][region], outputs[1][region])
    assert not torch.equal(outputs[0][3], outputs[1][3])
    assert not torch.equal(outputs[0][4], outputs[1][4])  # the second step sees it through the overlap


# --- check 4: noise and determinism -------------------------------------------------------------


def test_check_4_overlaps_start_from_the_same_noise(pipeline, text):
    unet = counting(pipeline)
    sample(pipeline, text, noise_of(0), four_regions([text(p) for p in PROMPTS]), unet=unet)
    upper_left, upper_right, lower_left, _ = (call[0] for call in unet.inputs[:4])
    assert torch.equal(upper_left[:, :, 8:], upper_right[:, :, :2])
    assert torch.equal(upper_left[:, 6:], lower_left[:, :2])


def test_check_4_same_seed_same_bytes(pipeline, text):
    regions = four_regions([text(prompt) for prompt in PROMPTS])
    images = [
        decode(pipeline.vae, sample(pipeline, text, noise_of(seed), regions), "round") for seed in (1, 1, 2)
    ]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_noise_of_an_image_does_not_depend_on_its_batch():
    together, alone = noise_of(1, 2, 3), noise_of(2)
    assert torch.equal(together[1], alone[0])


# --- check 5: batching --------------------------------------------------------------------------


@pytest.mark.parametrize(("scheduler", "timesteps"), [("pndm", 51), ("lms", 50)])
@pytest.mark.parametrize("canvases", [1, 3])
def test_check_5_calls_are_timesteps_times_regions(pipeline, text, scheduler, timesteps, canvases):
    unet = CountingUNet(lambda x, t, states: x / 2)
    regions = four_regions([text(prompt) for prompt in PROMPTS], canvases)
    sample(pipeline, text, noise_of(*range(canvases)), regions, scheduler, steps=50, unet=unet)
    assert len(unet.times) == timesteps * 4
    assert all(len(call) == 2 * canvases for call in unet.inputs)


@pytest.mark.parametrize("scheduler", ["pndm", "lms"])
def test_check_5_a_batch_equals_single_runs(pipeline, text, scheduler):
    seeds = (1, 2, 3)
    regions = four_regions([text(prompt) for prompt in PROMPTS], len(seeds))
    together = sample(pipeline, text, noise_of(*seeds), regions, scheduler, steps=8)
    for row, seed in enumerate(seeds):
        regions = four_regions([text(prompt) for prompt in PROMPTS])
        alone = sample(pipeline, text, noise_of(seed), regions, scheduler, steps=8)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheduler", [*SAMPLERS, "checkpoint"])
def test_every_sampler_runs_and_keeps_no_state_between_batches(pipeline, text, scheduler):
    regions = four_regions([text(prompt) for prompt in PROMPTS])
    first, second = (sample(pipeline, text, noise_of(1), regions, scheduler, steps=4) for _ in range(2))
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)


def test_samplers_that_add_noise_draw_it_from_each_image(pipeline, text):
    from diffusers import EulerAncestralDiscreteScheduler

    region = CanvasRegion(slice(0, 8), slice(0, 8), text(PROMPTS[0]))
    latents = {}
    for seeds in ((1, 2), (2,)):
        generators = [image_generator(seed) for seed in seeds]
        with torch.no_grad():
            latents[seeds] = denoise(
                pipeline.unet,
                EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config),
                draw_noise(generators, (4, 8, 8)),
                [CanvasRegion(region.rows, region.columns, region.text.expand(len(seeds), -1, -1))],
                text(""),
                steps=4,
                guidance=3.0,
                generators=generators,
            )
    torch.testing.assert_close(latents[1, 2][1], latents[2,][0], atol=1e-4, rtol=1e-4)


# --- check 6: the recorded steps, and low memory ------------------------------------------------


def maps_for(recorder, canvases=1):
    return [TokenMaps([[6]] * canvases, "mean", (8, 10), recorder.factors) for _ in range(4)]


def test_check_6_only_steps_in_the_window_count(pipeline, text):
    recorder = CrossAttentionRecorder(pipeline.unet, (1, 2, 4))
    states = [text(prompt) for prompt in PROMPTS]
    sums = {}
    for window in ((0, 6), (0, 2), (2, 6)):
        maps = maps_for(recorder)
        sample(
            pipeline, text, noise_of(1), four_regions(states, maps=maps), "pndm", steps=6,
            recorder=recorder, recorded_steps=window,
        )  # fmt: skip
        assert maps[0].count == (window[1] - window[0]) * sum(recorder.layers.values()) * 2  # heads
        sums[window] = maps[3].sums[2]
    torch.testing.assert_close(sums[0, 6], sums[0, 2] + sums[2, 6])


def test_check_6_more_than_51_steps_can_be_recorded(pipeline, text):
    recorder = CrossAttentionRecorder(pipeline.unet, (2,))
    maps = TokenMaps([[6]], "mean", (4, 4), recorder.factors)
    region = CanvasRegion(slice(0, 4), slice(0, 4), text(PROMPTS[0]), maps)
    sample(
        pipeline, text, noise_of(1, shape=(4, 4, 4)), [region], steps=60, recorder=recorder,
        recorded_steps=(0, 60),
    )  # fmt: skip
    assert maps.count == 60 * recorder.layers[2] * 2


def test_check_6_low_memory_gives_the_same_maps_and_latents(pipeline, text):
    recorder = CrossAttentionRecorder(pipeline.unet, (1, 2, 4), mid_block=True)
    states = [text(prompt) for prompt in PROMPTS]
    results = []
    for low_memory in (False, True):
        unet = counting(pipeline)
        maps = maps_for(recorder, canvases=2)
        latents = sample(
            pipeline, text, noise_of(1, 2), four_regions(states, 2, maps), unet=unet, low_memory=low_memory,
            recorder=recorder,
        )  # fmt: skip
        assert {len(call) for call in unet.inputs} == ({2} if low_memory else {4})
        results.append((latents, maps))
    (latents, maps), (latents_low, maps_low) = results
    torch.testing.assert_close(latents, latents_low, atol=1e-4, rtol=1e-4)
    for region, region_low in zip(maps, maps_low, strict=True):
        assert region.count == region_low.count > 0
        for factor in recorder.factors:
            torch.testing.assert_close(region.sums[factor], region_low.sums[factor], atol=1e-4, rtol=1e-4)


def test_guidance_of_one_is_the_prompt_alone(pipeline, text):
    latents, t = noise_of(3, shape=(4, 8, 8)), torch.tensor(400)
    with torch.no_grad():
        guided = guided_noise(pipeline.unet, latents, t, text(PROMPTS[0]), text(""), 1.0)
        prompted = pipeline.unet(latents, t, text(PROMPTS[0])).sample
    torch.testing.assert_close(guided, prompted, atol=1e-5, rtol=1e-5)


# --- pixels -------------------------------------------------------------------------------------


def test_decoded_pixels_are_rounded_or_truncated():
    values = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 0.999, 1.0, 7.0]).view(1, 1, 1, 8).expand(1, 3, 1, 8)
    vae = SimpleNamespace(
        config=SimpleNamespace(scaling_factor=0.5), decode=lambda latent, return_dict: (latent / 2,)
    )
    assert decode(vae, values, "round")[0, 0, :, 0].tolist() == [0, 0, 64, 128, 191, 255, 255, 255]
    assert decode(vae, values, "truncate")[0, 0, :, 0].tolist() == [0, 0, 63, 127, 191, 254, 255, 255]
    assert decode(vae, values, "round").shape == (1, 1, 8, 3)
