"""Denoise one canvas in regions, each with its own prompt (MosaicFusion, section 3.2, "diffusing").

Several canvases are denoised at once if they are cut alike: the U-Net runs once per time step and region for
the whole batch, and all canvases take the scheduler's steps together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel

from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from gen4det.diffusion.guidance import Watch, guided_noise
from gen4det.diffusion.schedulers import step_options

Blend = Literal["gaussian", "constant", "quartic"]


@dataclass
class CanvasRegion:
    """One region of every canvas of a batch.

    `rows` and `columns` are its extent in latent cells; `text`, float (canvases, tokens, channels), the text
    encoder's states of each canvas's prompt for it; `maps`, where its attention goes.
    """

    rows: slice
    columns: slice
    text: torch.Tensor
    maps: TokenMaps | None = None

    @property
    def window(self) -> tuple[slice, ...]:
        """Index of the region in a tensor (canvases, channels, height, width)."""
        return (..., self.rows, self.columns)


def denoise(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    noise: torch.Tensor,
    regions: Sequence[CanvasRegion],
    empty_text: torch.Tensor,
    *,
    steps: int,
    guidance: float,
    blend: Blend = "gaussian",
    low_memory: bool = False,
    generators: Sequence[torch.Generator] | None = None,
    recorder: CrossAttentionRecorder | None = None,
    recorded_steps: tuple[int, int] = (0, 50),
) -> torch.Tensor:
    """Denoise a batch of canvases.

    Args:
        scheduler: not yet used; multistep samplers keep the state of this batch.
        noise: standard normal float32 (canvases, channels, height, width) in latent cells. Regions are
            windows on it, so where they overlap they start from the same noise.
        empty_text: float (1, tokens, channels), the states of the empty prompt.
        guidance: weight g of classifier-free guidance: empty + g * (text - empty).
        low_memory: two U-Net calls per region and step, of half the batch.
        generators: one random stream per canvas, for samplers that add noise.
        recorded_steps: attention is recorded in U-Net evaluations (start, stop], counted from 1.

    Returns:
        Latent canvases, float32, of the shape of `noise`.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    options = step_options(scheduler, generators)
    latents = noise * scheduler.init_noise_sigma
    shares = blend_shares(noise.shape[-2:], regions, blend, noise.device)
    for number, t in enumerate(scheduler.timesteps, start=1):
        scaled = scheduler.scale_model_input(latents, t)
        merged = torch.zeros_like(latents)
        recording = recorded_steps[0] < number <= recorded_steps[1]
        for region, share in zip(regions, shares, strict=True):
            predicted = guided_noise(
                unet,
                scaled[region.window],
                t,
                region.text,
                empty_text,
                guidance,
                low_memory=low_memory,
                watch=_watch(recorder, region.maps) if recording else None,
            )
            merged[region.window] += share * predicted
        latents = scheduler.step(merged, t, latents, **options).prev_sample
    return latents


def _watch(recorder: CrossAttentionRecorder | None, maps: TokenMaps | None) -> Watch | None:
    """Attention to the prompt goes to `maps`."""
    if recorder is None or maps is None:
        return None
    return lambda rows: recorder.into(maps, rows)


def blend_shares(
    canvas: tuple[int, int], regions: Sequence[CanvasRegion], blend: Blend, device: torch.device
) -> list[torch.Tensor]:
    """Each region's share in the blend: its weights over the sum of all regions' weights at a latent cell.

    Computed in float64, because the Gaussian's tails are 3e10 times below its peak, and neither half nor
    single precision may round a region's only weight to zero.

    Returns:
        For each region float32 (height, width), in [0, 1]; shares add up to 1 wherever a region lies.
    """
    weights = [
        blend_weights(region.rows.stop - region.rows.start, region.columns.stop - region.columns.start, blend)
        for region in regions
    ]
    total = torch.zeros(canvas, dtype=torch.float64)
    for region, weight in zip(regions, weights, strict=True):
        total[region.window] += weight
    return [
        (weight / total[region.window]).to(device, torch.float32)
        for region, weight in zip(regions, weights, strict=True)
    ]


def blend_weights(height: int, width: int, blend: Blend) -> torch.Tensor:
    """Weights of a region's noise prediction, separable; the paper does not state them.

    "gaussian" (released code): a normal density with variance 0.01 over the position in units of the side,
    around its middle. "quartic": 15/16 (1 - u^2)^2 with u in [-0.995, 0.995] across the side.

    Returns:
        float64 (height, width) in latent cells, positive.
    """
    rows, columns = (_axis_weights(cells, blend) for cells in (height, width))
    return rows[:, None] * columns


def _axis_weights(cells: int, blend: Blend) -> torch.Tensor:
    if blend == "constant":
        return torch.ones(cells, dtype=torch.float64)
    offset = torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2
    if blend == "gaussian":
        variance = 0.01
        return torch.exp(-((offset / cells) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    u = 1.99 * offset / max(cells - 1, 1)
    return 15 / 16 * (1 - u**2) ** 2
