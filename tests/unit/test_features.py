"""Taps of U-Net features against diffusers' own intermediate results and blocks run by hand."""

import math

import pytest
import torch

from gen4det.core.errors import InputError
from gen4det.diffusion.features import FeatureTaps
from real_architectures import unet as real_unet
from tiny_models import tiny_unet

FOUR = {"block_out_channels": (16, 32, 48, 64)}  # distinct widths make channel mistakes visible
THREE = {
    "block_out_channels": (16, 32, 48),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}
SIZES = [(8, 16), (9, 13), (4, 4)]


def inputs(images, height, width, seed=0):
    draw = torch.Generator().manual_seed(seed)
    latents = torch.randn(images, 4, height, width, generator=draw)
    return latents, torch.randn(images, 77, 16, generator=draw)


@torch.no_grad()
def by_hand(unet, latents, t, states):
    """The U-Net's forward pass written out: every block is called, and what its layers returned is noted.

    Down blocks return the results of their layers themselves (diffusers' `down_block_res_samples`); the
    layers of up blocks are run one by one.
    """
    embedding = unet.time_embedding(unet.time_proj(torch.full((len(latents),), t)).to(latents.dtype))
    hidden = unet.conv_in(latents)
    residuals, blocks, layers, before = [hidden], [], [hidden], []
    for block in unet.down_blocks:
        more = {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}
        hidden, results = block(hidden, temb=embedding, **more)
        residuals += results
        layers += results
        blocks.append(hidden)
    hidden = unet.mid_block(hidden, embedding, encoder_hidden_states=states)
    blocks.append(hidden)
    layers.append(hidden)
    for number, block in enumerate(unet.up_blocks):
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for resnet, attention in zip(block.resnets, attentions, strict=True):
            hidden = resnet(torch.cat([hidden, residuals.pop()], dim=1), embedding)
            if attention is not None:
                hidden = attention(hidden, encoder_hidden_states=states, return_dict=False)[0]
            layers.append(hidden)
        before.append(hidden)
        if block.upsamplers:
            last = number == len(unet.up_blocks) - 1
            hidden = block.upsamplers[0](hidden, None if last else residuals[-1].shape[2:])
            layers[-1] = hidden
        blocks.append(hidden)
    assert not residuals
    output = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    return {"layers": layers, "blocks": blocks, "up": before}, output


def expected_levels(kind, unet):
    """Levels of the taps in the order of execution, written down for four and three blocks."""
    four = {
        "layers": [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0],
        "blocks": [1, 2, 3, 3, 3, 2, 1, 0, 0],
        "up": [3, 2, 1, 0],
    }
    three = {
        "layers": [0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0, 0],
        "blocks": [1, 2, 2, 2, 1, 0, 0],
        "up": [2, 1, 0],
    }
    return (four if len(unet.down_blocks) == 4 else three)[kind]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["layers", "blocks", "up"])
@pytest.mark.parametrize("shape", [FOUR, THREE], ids=["four blocks", "three blocks"])
def test_taps_equal_the_blocks_run_by_hand(shape, kind, size):
    unet = tiny_unet(**shape)
    latents, states = inputs(2, *size)
    reference, output = by_hand(unet, latents, 7, states)
    taps = FeatureTaps(unet, kind)
    with torch.no_grad(), taps.capture() as features:
        tapped_output = unet(latents, 7, encoder_hidden_states=states).sample
    torch.testing.assert_close(tapped_output, output)  # the reference is the U-Net's own pass
    assert [tap.level for tap in taps.taps] == expected_levels(kind, unet)
    for found, expected in zip(features.maps.values(), reference[kind], strict=True):
        torch.testing.assert_close(found, expected)
    levels = features.pyramid()
    for number, level in enumerate(levels):
        members = [
            value
            for value, place in zip(reference[kind], expected_levels(kind, unet), strict=True)
            if place == number
        ]
        torch.testing.assert_close(level, torch.cat(members, dim=1))
        assert level.shape[2:] == tuple(math.ceil(side / 2**number) for side in size)
    assert taps.channels() == [level.shape[1] for level in levels]


def test_layers_of_the_down_path_are_diffusers_own_residuals():
    """What diffusers hands its up blocks, its `down_block_res_samples`, are exactly our first twelve maps."""
    unet = tiny_unet(**FOUR)
    latents, states = inputs(1, 9, 13)
    handed = []
    hooks = [
        block.register_forward_pre_hook(
            lambda module, arguments, named: handed.insert(0, named["res_hidden_states_tuple"]),
            with_kwargs=True,
        )
        for block in unet.up_blocks
    ]
    with torch.no_grad(), FeatureTaps(unet, "layers").capture() as features:
        unet(latents, 7, encoder_hidden_states=states)
    for hook in hooks:
        hook.remove()
    residuals = [value for values in handed for value in values]
    assert len(features.maps) == 25 and len(residuals) == 12
    for found, expected in zip(list(features.maps.values())[:12], residuals, strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_channels_of_block_outputs_of_real_stable_diffusion():
    """c1 + c0, c0 + c2, c1 + c3 and c2 + 2 c3: 960, 1600, 1920, 3840."""
    unet = real_unet("stable-diffusion-2-0-base")
    assert FeatureTaps(unet, "blocks").channels() == [960, 1600, 1920, 3840]
    assert FeatureTaps(unet, "up").channels() == [320, 640, 1280, 1280]
    both = FeatureTaps(real_unet("stable-diffusion-1-4"), "layers")
    assert [2 * channels for channels in both.channels()] == [5120, 8320, 14080, 15360]
    assert FeatureTaps(tiny_unet(block_out_channels=(32, 64, 96, 128)), "blocks").channels() == [
        96, 128, 192, 352,
    ]  # fmt: skip


def test_rows_choose_the_half_that_sees_the_prompt():
    unet = tiny_unet(**FOUR)
    latents, states = inputs(3, 8, 8)
    empty = inputs(3, 8, 8, seed=1)[1]
    taps = FeatureTaps(unet, "blocks")
    doubled = latents.repeat(2, 1, 1, 1), 1, torch.cat([empty, states])
    with torch.no_grad():
        with taps.capture(slice(3, None)) as half:
            unet(*doubled)
        with taps.capture() as whole:
            unet(*doubled)
        with taps.capture() as alone:
            unet(latents, 1, states)
        with taps.capture() as without:
            unet(latents, 1, empty)
    for prompted, single in zip(half.pyramid(), alone.pyramid(), strict=True):
        torch.testing.assert_close(prompted, single, atol=1e-5, rtol=1e-5)
    # Both halves side by side: of each tap first the channels without, then those with prompt.
    first = {"without": list(without.maps.values()), "with": list(alone.maps.values())}
    smallest = [first[kind][number] for number in (2, 3, 4) for kind in ("without", "with")]
    torch.testing.assert_close(
        whole.pyramid(halves="channels")[3], torch.cat(smallest, dim=1), atol=1e-5, rtol=1e-5
    )


def test_of_several_evaluations_the_latest_is_kept_and_hooks_are_gone_afterwards():
    unet = tiny_unet(**FOUR)
    latents, states = inputs(1, 8, 8)
    taps = FeatureTaps(unet, "blocks")
    with torch.no_grad():
        with taps.capture() as features:
            for t in (900, 500, 1):
                unet(latents, t, states)
        with taps.capture() as last:
            unet(latents, 1, states)
    for found, expected in zip(features.maps.values(), last.maps.values(), strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    with pytest.raises(RuntimeError, match="stop"), taps.capture():
        raise RuntimeError("stop")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
    with taps.capture() as nothing:
        pass
    with pytest.raises(ValueError, match="did not run"):
        nothing.pyramid()


@pytest.mark.parametrize("kind", ["layers", "blocks", "up"])
def test_gradients_are_the_same_under_gradient_checkpointing(kind):
    """A loss on the features trains the U-Net, and the hooks' results survive the recomputation."""
    gradients, losses = [], []
    for checkpointing in (False, True):
        unet = tiny_unet(**FOUR).requires_grad_(True).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        latents, states = inputs(2, 8, 8)
        with FeatureTaps(unet, kind).capture() as features:
            prediction = unet(latents, 300, states).sample
            loss = prediction.square().mean() + sum(level.square().mean() for level in features.pyramid())
            loss.backward()  # recomputation happens while the hooks are there
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in unet.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 100
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_half_precision_features_come_as_float32():
    unet = tiny_unet(**FOUR).to(torch.bfloat16)
    latents, states = inputs(1, 8, 8)
    with torch.no_grad(), FeatureTaps(unet, "up").capture() as features:
        unet(latents.bfloat16(), 1, states.bfloat16())
    assert {level.dtype for level in features.pyramid()} == {torch.float32}
    assert FeatureTaps(unet, "up").channels() == [16, 32, 48, 64]


def test_a_unet_of_another_build_is_refused():
    unet = tiny_unet(**FOUR)
    unet.up_blocks[1].upsamplers = None
    with pytest.raises(InputError, match="not built like Stable Diffusion"):
        FeatureTaps(unet, "blocks")
