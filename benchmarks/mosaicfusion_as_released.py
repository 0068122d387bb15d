"""Draw a canvas the way MosaicFusion's released code goes about it, to compare speeds with.

Written anew, from a description of the procedure and on the engine's own parts, so that both draw the same
picture and differ in how: one canvas at a time; the empty prompt encoded for each region; beside the fused
attention of every cross-attention layer the softmax of all tokens, with and without prompt; all of them kept
and added up, layer by layer, head by head; the average of all that is kept formed anew for each region and
resolution. What the released code computes and throws away is left out.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.schedulers import make_scheduler
from gen4det.diffusion.text import TextStates
from gen4det.diffusion.unet_levels import layer_level
from gen4det.engines.mosaicfusion.canvas import CanvasRegion, blend_weights
from gen4det.engines.mosaicfusion.draw import CanvasSampler, Heat


@torch.no_grad()
def draw_as_released(sampler: CanvasSampler, row: dict) -> tuple[np.ndarray, list[Heat]]:
    """Draw one canvas.

    Returns:
        uint8 (H, W, 3) and, for each region, its maps: down-sampling factor -> float32 (h, w), each the
        average of its own softmaxes (the engine's are that times the factor's share of all layers).
    """
    pipeline, settings = sampler.pipeline, sampler.settings
    unet, cell = pipeline.unet, pipeline.vae_scale_factor
    regions = [_region(pipeline, region, cell) for region in row["regions"]]
    scheduler = make_scheduler(pipeline.scheduler, settings.denoising.scheduler)
    scheduler.set_timesteps(settings.denoising.steps)
    shape = (unet.config.in_channels, row["height"] // cell, row["width"] // cell)
    latents = draw_noise([image_generator(row["seed"])], shape, sampler.device) * scheduler.init_noise_sigma
    weights = [
        blend_weights(*latents[region.window].shape[-2:], settings.blend).to(latents) for region in regions
    ]
    processors = dict(unet.attn_processors)
    store = _Store(unet, len(regions))
    try:
        for t in scheduler.timesteps:
            merged, total = torch.zeros_like(latents), torch.zeros_like(latents)
            predictions = []
            for number, region in enumerate(regions):
                store.region = number
                doubled = scheduler.scale_model_input(torch.cat([latents[region.window]] * 2), t)
                both = unet(doubled, t, encoder_hidden_states=region.text, return_dict=False)[0]
                without, prompted = both.chunk(2)
                predictions.append(without + settings.denoising.guidance * (prompted - without))
            for region, predicted, weight in zip(regions, predictions, weights, strict=True):
                merged[region.window] += predicted * weight
                total[region.window] += weight
            latents = scheduler.step(torch.nan_to_num(merged / total), t, latents).prev_sample
            store.end_step()
    finally:
        unet.set_attn_processor(processors)
    image = decode(pipeline.vae, latents, settings.rounding).numpy()[0]
    maps = []
    for number, region in enumerate(row["regions"]):
        size = region["box"][3] // cell, region["box"][2] // cell
        sizes = {f: (-(-size[0] // f), -(-size[1] // f)) for f in sampler.recorder.factors}
        maps.append({f: store.average(number, f, region["tokens"]).reshape(s) for f, s in sizes.items()})
    return image, maps


def _region(pipeline, region: dict, cell: int) -> CanvasRegion:
    x, y, width, height = (length // cell for length in region["box"])
    states = TextStates(pipeline)  # remembers nothing from region to region
    text = torch.cat([states(""), states(region["prompt"])])
    return CanvasRegion(rows=slice(y, y + height), columns=slice(x, x + width), text=text)


class _Store:
    """The softmaxes of all cross-attention layers, of this step and added up over the steps before."""

    def __init__(self, unet: UNet2DConditionModel, regions: int):
        self.region = self.steps = 0
        self.sums: list[list[tuple[int | None, torch.Tensor]]] = []
        self.step = [[] for _ in range(regions)]
        processors = dict(unet.attn_processors)
        for name in processors:
            layer = name.removesuffix(".processor")
            if layer.endswith(".attn2"):
                middle = layer.startswith("mid_block")  # kept, but not read
                factor = None if middle else 2 ** layer_level(layer, len(unet.down_blocks))
                processors[name] = _KeepingProcessor(self, factor)
        unet.set_attn_processor(processors)

    def end_step(self) -> None:
        if not self.sums:
            self.sums = self.step
        else:
            for sums, step in zip(self.sums, self.step, strict=True):
                for (_, total), (_, added) in zip(sums, step, strict=True):
                    total += added
        self.step = [[] for _ in self.step]
        self.steps += 1

    def average(self, region: int, factor: int, tokens: Sequence[int]) -> np.ndarray:
        """float32 (positions,): mean over steps, layers of this factor, heads and tokens."""
        averages = [[(place, total / self.steps) for place, total in sums] for sums in self.sums]
        chosen = torch.cat([softmax for place, softmax in averages[region] if place == factor], dim=1)
        return chosen.mean(1)[0][:, list(tokens)].mean(1).cpu().numpy()


class _KeepingProcessor:
    def __init__(self, store: _Store, factor: int | None):
        self.store, self.factor = store, factor

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query, key, value = (
            split(project(states))
            for project, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        softmaxes = (attn.scale * query @ key.transpose(-1, -2)).softmax(-1)
        # A view: the half without prompt stays in memory as long as the other.
        self.store.step[self.store.region].append((self.factor, softmaxes[len(softmaxes) // 2 :]))
        return attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor
