"""Streaming attention against the store-everything way: acceptance check 6."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gen4det.core.errors import InputError
from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from tiny_models import tiny_unet

TOKENS = 77
FACTORS = (1, 2, 4)


class NaiveStore:
    """Keeps every softmax of every cross-attention layer; what the recorder is compared with."""

    def __init__(self, unet):
        self.probabilities = defaultdict(list)  # layer -> [(batch, heads, positions, tokens)]
        self.hooks = []
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                self.hooks.append(module.register_forward_hook(self._hook(name), with_kwargs=True))

    def _hook(self, name):
        def store(attention, arguments, named, _):
            query = attention.head_to_batch_dim(attention.to_q(arguments[0]))
            key = attention.head_to_batch_dim(attention.to_k(named["encoder_hidden_states"]))
            softmax = attention.get_attention_scores(query, key)
            self.probabilities[name].append(softmax.unflatten(0, (-1, attention.heads)))

        return store

    def remove(self):
        for hook in self.hooks:
            hook.remove()

    def maps(self, row, sizes, tokens):
        """Sums over steps, layers and heads by factor, of one row of the batch, and how many were summed."""
        by_count = {h * w: factor for factor, (h, w) in sizes.items()}
        sums, count = defaultdict(int), 0
        for name, steps in self.probabilities.items():
            for softmax in steps:
                factor = by_count.get(softmax.shape[2])
                if factor is not None and not name.startswith("mid"):
                    sums[factor] = sums[factor] + softmax[row].sum(0)[..., tokens]
                    count += softmax.shape[1]
        return sums, count


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


def inputs(images, height, width, seed=0):
    draw = torch.Generator().manual_seed(seed)
    latents = torch.randn(images, 4, height, width, generator=draw)
    states = torch.randn(images, TOKENS, 16, generator=draw)
    return latents, states


def test_recording_changes_nothing_of_the_output(unet):
    latents, states = inputs(2, 8, 12)
    plain = tiny_unet()
    recorder = CrossAttentionRecorder(unet, FACTORS, mid_block=True)
    maps = TokenMaps([[1], [2, 3]], "max", (8, 12), recorder.factors)
    with recorder.into(maps):
        recorded = unet(latents, 10, states).sample
    torch.testing.assert_close(recorded, plain(latents, 10, states).sample, atol=1e-6, rtol=1e-5)
    assert maps.count > 0


@pytest.mark.parametrize("size", [(8, 12), (14, 19), (5, 7)])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_check_6_equals_storing_everything(unet, size, reduce):
    images, tokens = 3, [[4], [1, 2, 3], [76, 0]]
    recorder = CrossAttentionRecorder(unet, FACTORS)
    maps = TokenMaps(tokens, reduce, size, recorder.factors)
    naive = NaiveStore(unet)
    latents, states = inputs(2 * images, *size)
    for t in (900, 500, 100):
        with recorder.into(maps, rows=slice(images, None)):
            unet(latents, t, states)
    naive.remove()
    for steps in naive.probabilities.values():
        for softmax in steps:
            torch.testing.assert_close(softmax.sum(-1), torch.ones(softmax.shape[:-1]))
    for image, positions in enumerate(tokens):
        sums, count = naive.maps(images + image, maps.sizes, positions)
        for factor, (h, w) in maps.sizes.items():
            assert (h, w) == tuple(math.ceil(side / factor) for side in size)
            expected = sums[factor].mean(-1) if reduce == "mean" else sums[factor].amax(-1)
            actual = maps.maps()[image][factor]
            assert actual.dtype == np.float32 and actual.shape == (h, w)
            np.testing.assert_allclose(actual, expected.view(h, w) / count, atol=1e-5, rtol=1e-4)


def test_check_6_fifteen_layers_and_the_middle_block_on_request(unet):
    recorder = CrossAttentionRecorder(unet, FACTORS)
    assert recorder.layers == {1: 5, 2: 5, 4: 5}
    with_middle = CrossAttentionRecorder(unet, FACTORS, mid_block=True)
    assert with_middle.layers == {1: 5, 2: 5, 4: 5, 8: 1}
    assert CrossAttentionRecorder(unet, (8,), mid_block=True).layers == {8: 1}
    assert CrossAttentionRecorder(unet, (2, 8)).factors == (2,)
    with pytest.raises(InputError, match="no cross-attention"):
        CrossAttentionRecorder(unet, (8,))


def test_check_6_memory_does_not_grow_with_steps_layers_heads_or_prompt():
    sizes = []
    for layers, heads, steps in ((1, 1, 1), (2, 4, 6)):
        unet = tiny_unet(layers_per_block=layers, attention_head_dim=heads)
        recorder = CrossAttentionRecorder(unet, FACTORS)
        maps = TokenMaps([[3]], "mean", (8, 8), recorder.factors)
        latents, states = inputs(1, 8, 8)
        for _ in range(steps):
            with recorder.into(maps):
                unet(latents, 1, states)
        sizes.append(maps.nbytes)
    assert sizes[0] == sizes[1] == 4 * (64 + 16 + 4)  # float32, 8x8 and its halves


def test_only_the_wanted_rows_and_only_inside_the_block(unet):
    recorder = CrossAttentionRecorder(unet, FACTORS)
    latents, states = inputs(2, 8, 8)
    outside = TokenMaps([[3]], "mean", (8, 8), recorder.factors)
    unet(latents, 1, states)
    assert outside.count == 0 and not any(m.any() for m in outside.maps()[0].values())
    second, both = (TokenMaps([[3]] * n, "mean", (8, 8), recorder.factors) for n in (1, 2))
    with recorder.into(second, rows=slice(1, None)):
        unet(latents, 1, states)
    with recorder.into(both):
        unet(latents, 1, states)
    for factor in FACTORS:
        np.testing.assert_array_equal(second.maps()[0][factor], both.maps()[1][factor])


def test_resizing_the_sum_is_summing_the_resized():
    """Why a sum per resolution suffices even for the paper's order: resize each layer's map, then average."""
    draw = torch.Generator().manual_seed(0)
    layers = {f: torch.rand(5, 1, 24 // f, 32 // f, generator=draw) for f in FACTORS}

    def resize(maps):
        return F.interpolate(maps, size=(192, 256), mode="bicubic", align_corners=False)

    one_by_one = torch.cat([resize(maps) for maps in layers.values()]).mean(0)
    count = sum(len(maps) for maps in layers.values())
    from_sums = sum(resize(maps.sum(0, keepdim=True))[0] / count for maps in layers.values())
    torch.testing.assert_close(from_sums, one_by_one)


def test_the_sum_of_the_maps_is_the_average_attention(unet):
    """The maps of all 77 tokens together are one everywhere."""
    recorder = CrossAttentionRecorder(unet, (1,))
    latents, states = inputs(1, 8, 8)
    maps = TokenMaps([list(range(TOKENS))], "mean", (8, 8), recorder.factors)
    with recorder.into(maps):
        unet(latents, 5, states)
    np.testing.assert_allclose(maps.maps()[0][1] * TOKENS, np.ones((8, 8)), rtol=1e-5)


def test_half_precision_is_summed_in_float32():
    unet = tiny_unet().to(torch.bfloat16)
    recorder = CrossAttentionRecorder(unet, FACTORS)
    latents, states = inputs(1, 8, 8)
    maps = TokenMaps([[3]], "mean", (8, 8), recorder.factors)
    with recorder.into(maps):
        unet(latents.bfloat16(), 5, states.bfloat16())
    assert all(sums.dtype == torch.float32 for sums in maps.sums.values())
    assert np.isfinite(maps.maps()[0][1]).all()
