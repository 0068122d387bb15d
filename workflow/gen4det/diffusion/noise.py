"""Initial noise: one random stream per image, drawn on the CPU, so that no device or batch changes it."""

from collections.abc import Sequence

import torch


def image_generator(seed: int) -> torch.Generator:
    """CPU random stream of one image.

    Args:
        seed: in [0, 2**63).
    """
    return torch.Generator("cpu").manual_seed(seed)


def draw_noise(
    generators: Sequence[torch.Generator], shape: tuple[int, ...], device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Standard normal noise, one sample from each stream.

    Args:
        shape: of one sample, e.g. (channels, height, width) in latent cells.

    Returns:
        float32 (len(generators), *shape) on `device`.
    """
    samples = [torch.randn(shape, generator=generator) for generator in generators]
    return torch.stack(samples).to(device)
