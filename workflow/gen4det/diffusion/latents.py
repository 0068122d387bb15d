"""Between pixels and latents, image by image: memory and the last bit do not depend on the batch."""

from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL


def encode(vae: AutoencoderKL, images: np.ndarray, noise: torch.Tensor) -> torch.Tensor:
    """Images to latents, sampled from the autoencoder's posterior.

    Args:
        images: uint8 (images, height, width, 3) RGB, sides in whole latent cells.
        noise: standard normal float32 (images, channels, height, width) in latent cells.

    Returns:
        float32 of the shape of `noise`, scaled as the U-Net expects.
    """
    latents = []
    for image, sample in zip(images, noise, strict=True):
        pixels = torch.from_numpy(image).to(noise.device).permute(2, 0, 1) / 127.5 - 1
        posterior = vae.encode(pixels[None]).latent_dist
        latents.append(posterior.mean[0] + posterior.std[0] * sample)
    return torch.stack(latents) * vae.config.scaling_factor


def decode(vae: AutoencoderKL, latents: torch.Tensor, rounding: Literal["round", "truncate"]) -> torch.Tensor:
    """Latents to pixels.

    Args:
        latents: float32 (images, channels, height, width) in latent cells.
        rounding: of values in [0, 255] to integers.

    Returns:
        uint8 (images, height, width, 3) RGB in pixels, on the CPU.
    """
    images = []
    for latent in latents:
        pixels = vae.decode(latent[None] / vae.config.scaling_factor, return_dict=False)[0][0]
        pixels = (pixels / 2 + 0.5).clamp(0, 1) * 255
        if rounding == "round":
            pixels = pixels.round()
        images.append(pixels.permute(1, 2, 0).to("cpu", torch.uint8))
    return torch.stack(images)
