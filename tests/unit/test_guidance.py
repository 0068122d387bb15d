"""The one guided noise prediction against two plain evaluations of the U-Net."""

import contextlib

import pytest
import torch

from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.guidance import guided_noise
from tiny_models import tiny_unet

DRAW = torch.Generator().manual_seed(0)
LATENTS = torch.randn(3, 4, 8, 12, generator=DRAW)
TEXT = torch.randn(3, 77, 16, generator=DRAW)
NEGATIVE = torch.randn(1, 77, 16, generator=DRAW)


@pytest.fixture(scope="module")
def unet():
    return tiny_unet(layers_per_block=1)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 7.5])
def test_it_is_the_formula(unet, guidance, low_memory):
    with torch.no_grad():
        without = unet(LATENTS, 400, NEGATIVE.expand(3, -1, -1)).sample
        prompted = unet(LATENTS, 400, TEXT).sample
        found = guided_noise(unet, LATENTS, 400, TEXT, NEGATIVE, guidance, low_memory=low_memory)
    torch.testing.assert_close(found, without + guidance * (prompted - without), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("images", [1, 3])
def test_who_watches_sees_the_rows_with_prompt(unet, images, low_memory):
    taps = FeatureTaps(unet, "blocks")
    seen = []

    @contextlib.contextmanager
    def watch(rows):
        with taps.capture(rows) as features:
            yield
        seen.append(features)

    latents, text = LATENTS[:images], TEXT[:images]
    with torch.no_grad():
        guided_noise(unet, latents, 1, text, NEGATIVE, 1.0, low_memory=low_memory, watch=watch)
        with taps.capture() as alone:
            unet(latents, 1, text)
    (features,) = seen
    for found, expected in zip(features.pyramid(), alone.pyramid(), strict=True):
        assert len(found) == images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_half_precision_predictions_are_combined_in_float32():
    half = tiny_unet(layers_per_block=1).to(torch.bfloat16)
    with torch.no_grad():
        found = guided_noise(half, LATENTS, 400, TEXT, NEGATIVE, 7.5)
    assert found.dtype == torch.float32
