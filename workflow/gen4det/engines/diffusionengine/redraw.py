"""Image to image: a reference noised to some depth and denoised under a prompt, watched in its last step."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.guidance import guided_noise
from gen4det.diffusion.latents import encode
from gen4det.diffusion.noise import draw_noise
from gen4det.diffusion.replay import add_noise, noise_schedule
from gen4det.diffusion.schedulers import make_scheduler


@torch.inference_mode()
def redraw(
    pipeline: StableDiffusionPipeline,
    taps: FeatureTaps,
    images: np.ndarray,
    text: torch.Tensor,
    negative_text: torch.Tensor,
    *,
    nominal_steps: int,
    steps: int,
    eta: Sequence[float],
    guidance: Sequence[float],
    generators: Sequence[torch.Generator],
    low_memory: bool = False,
    watched: bool = True,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Draw images anew (section 3.3): DDIM's last `steps` of `nominal_steps`.

    The number of steps is a whole one, given by the caller, and nothing is rounded here. Each image has its
    own `eta`, guidance and random stream, from which come, in this order, the sample of the autoencoder's
    posterior, the noise that is added, and the noise of each step.

    Args:
        taps: of the pipeline's U-Net.
        images: uint8 (images, height, width, 3) RGB, sides in whole latent cells.
        text: float (images, tokens, channels), states of the prompts.
        negative_text: float (1, tokens, channels), of what guidance leads away from.
        steps: from 1 to `nominal_steps`.
        low_memory: see `guided_noise`.
        watched: whether features of the last step are wanted.

    Returns:
        Latents, float32 (images, channels, height, width) in cells; and the features of the last evaluation,
        of the half that sees the prompt, float32 for each level; none, if not `watched`.

    Raises:
        ValueError: no step, or more than there are.
    """
    if not 1 <= steps <= nominal_steps:
        raise ValueError(f"{steps} of {nominal_steps} steps: expected 1 to {nominal_steps}")
    vae, device = pipeline.vae, pipeline.unet.device
    cells = (side // pipeline.vae_scale_factor for side in images.shape[1:3])
    shape = (vae.config.latent_channels, *cells)
    latents = encode(vae, images, draw_noise(generators, shape, device))
    scheduler = make_scheduler(pipeline.scheduler, "ddim")
    scheduler.set_timesteps(nominal_steps, device=device)
    times = scheduler.timesteps[-steps:]
    noise = draw_noise(generators, shape, device)
    latents = add_noise(noise_schedule(pipeline.scheduler), latents, noise, int(times[0]))
    weights = torch.tensor(guidance, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
    features: list[torch.Tensor] = []

    @contextlib.contextmanager
    def watch(rows: slice) -> Iterator[None]:
        with taps.capture(rows) as captured:
            yield
        features.extend(captured.pyramid())

    for number, t in enumerate(times, start=1):
        predicted = guided_noise(
            pipeline.unet,
            scheduler.scale_model_input(latents, t),
            t,
            text,
            negative_text,
            weights,
            low_memory=low_memory,
            watch=watch if watched and number == steps else None,
        )
        previous = [
            scheduler.step(noise, t, latent, eta=share, generator=stream).prev_sample
            for noise, latent, share, stream in zip(
                predicted.split(1), latents.split(1), eta, generators, strict=True
            )
        ]
        latents = torch.cat(previous)
    return latents, features
