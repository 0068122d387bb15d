"""Features of a U-Net, tapped with plain forward hooks while it runs.

Three engines look into the same U-Net with different wishes:

    layers     every layer's output, as InstaGen reads them (its section 3.2): 25 of Stable Diffusion
    blocks     every block's output, as DiffusionEngine reads them: 9 of Stable Diffusion
    up         the last hidden state of each up block before its upsampler, for DetDiffusion's perception loss

Levels follow from the place of a block, never from the size of a map: in a small image two levels may be of
equal size. Hooks exist only while a `capture` is open, so the U-Net is not changed and captures of different
users do not meet. Gradients follow torch's mode: under `torch.no_grad` nothing is kept of the graph.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from gen4det.diffusion.unet_levels import layer_level, require_plain_levels

Taps = Literal["layers", "blocks", "up"]


@dataclass(frozen=True)
class Tap:
    """One place where a U-Net is tapped: the output of a module, and its level (0 is the latents' size)."""

    module: str
    level: int


@dataclass
class Features:
    """What was tapped in the latest evaluation of a U-Net.

    `maps` holds for each tap float (rows, channels, height, width), in the order of execution.
    """

    taps: tuple[Tap, ...]
    maps: dict[str, Tensor] = field(default_factory=dict)

    def pyramid(self, *, halves: Literal["rows", "channels"] = "rows") -> list[Tensor]:
        """The maps of each level side by side along their channels, in the order of execution.

        Args:
            halves: "channels" takes the rows as two halves, without and with prompt, that belong to the same
                images, and puts these halves of each tap side by side, too (InstaGen).

        Returns:
            float32 (images, channels of the level, height, width), the largest level first.

        Raises:
            ValueError: the U-Net has not run inside the capture.
        """
        if len(self.maps) != len(self.taps):
            raise ValueError("no features: the U-Net did not run inside this capture")
        levels: dict[int, list[Tensor]] = {}
        for tap in self.taps:
            tapped = self.maps[tap.module].float()
            levels.setdefault(tap.level, []).extend(tapped.chunk(2) if halves == "channels" else [tapped])
        return [torch.cat(levels[level], dim=1) for level in sorted(levels)]


class FeatureTaps:
    """The taps of one U-Net.

    Args:
        unet: any U-Net of Stable Diffusion's kind, with three or four blocks as a rule.
        kind: see the module.

    Raises:
        InputError: a U-Net of another build.
    """

    def __init__(self, unet: UNet2DConditionModel, kind: Taps):
        require_plain_levels(unet)
        self.unet = unet
        self.taps = {"layers": _layers, "blocks": _blocks, "up": _before_upsampling}[kind](unet)

    @contextlib.contextmanager
    def capture(self, rows: slice = slice(None)) -> Iterator[Features]:
        """Tap the evaluations of the U-Net inside this block; of several, the latest is kept.

        Gradient checkpointing runs parts of the U-Net again in the backward pass. What the first run gave is
        kept: it is what the loss was computed from, and its gradient is right.

        Args:
            rows: of the U-Net's batch, e.g. the half that sees the prompt.
        """
        features = Features(self.taps)
        hooks = [self.unet.register_forward_pre_hook(lambda *_: features.maps.clear())]
        hooks += [
            self.unet.get_submodule(tap.module).register_forward_hook(_store(features, tap.module, rows))
            for tap in self.taps
        ]
        try:
            yield features
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def channels(self) -> list[int]:
        """Channels of each level of the pyramid, the largest first, found by a dry run on a few cells."""
        config = self.unet.config
        side = 2 ** (len(self.unet.down_blocks) - 1)
        width = config.cross_attention_dim
        width = width if isinstance(width, int) else width[0]
        like = {"device": self.unet.device, "dtype": self.unet.dtype}
        latents = torch.zeros(1, config.in_channels, side, side, **like)
        with self.capture() as features:
            self.unet(latents, 1, encoder_hidden_states=torch.zeros(1, 1, width, **like))
        return [level.shape[1] for level in features.pyramid()]


def _store(features: Features, name: str, rows: slice):
    def hook(module: nn.Module, arguments: tuple, output: Tensor | tuple) -> None:
        if name not in features.maps:
            features.maps[name] = (output[0] if isinstance(output, tuple) else output)[rows]

    return hook


# --- places ---------------------------------------------------------------------------------------


def _blocks(unet: UNet2DConditionModel) -> tuple[Tap, ...]:
    count = len(unet.down_blocks)
    taps = [
        Tap(name, layer_level(name, count) + bool(block.downsamplers))
        for name, block in _named(unet.down_blocks, "down_blocks")
    ]
    taps.append(Tap("mid_block", count - 1))
    taps += [
        Tap(name, layer_level(name, count) - bool(block.upsamplers))
        for name, block in _named(unet.up_blocks, "up_blocks")
    ]
    return tuple(taps)


def _layers(unet: UNet2DConditionModel) -> tuple[Tap, ...]:
    """As Stable Diffusion's first code counts: a layer is a residual block with its attention, or the
    downsampler; an upsampler belongs to the last layer of its block."""
    count = len(unet.down_blocks)
    taps = [Tap("conv_in", 0)]
    for name, block in _named(unet.down_blocks, "down_blocks"):
        level = layer_level(name, count)
        taps += [Tap(layer, level) for layer in _members(name, block)]
        if block.downsamplers:
            taps.append(Tap(f"{name}.downsamplers.0", level + 1))
    taps.append(Tap("mid_block", count - 1))
    for name, block in _named(unet.up_blocks, "up_blocks"):
        level = layer_level(name, count)
        *inner, last = _members(name, block)
        taps += [Tap(layer, level) for layer in inner]
        taps.append(Tap(f"{name}.upsamplers.0", level - 1) if block.upsamplers else Tap(last, level))
    return tuple(taps)


def _before_upsampling(unet: UNet2DConditionModel) -> tuple[Tap, ...]:
    count = len(unet.down_blocks)
    return tuple(
        Tap(_members(name, block)[-1], layer_level(name, count))
        for name, block in _named(unet.up_blocks, "up_blocks")
    )


def _named(blocks: nn.ModuleList, place: str) -> Iterator[tuple[str, nn.Module]]:
    return ((f"{place}.{index}", block) for index, block in enumerate(blocks))


def _members(name: str, block: nn.Module) -> list[str]:
    """The modules whose outputs are a block's layers: its attentions where it has some."""
    kind = "attentions" if getattr(block, "attentions", None) else "resnets"
    return [f"{name}.{kind}.{index}" for index in range(len(getattr(block, kind)))]
