"""From latents to a U-Net's features: one evaluation at one time step, no denoising."""

import torch
from diffusers import SchedulerMixin

from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.schedulers import make_scheduler


def noise_schedule(checkpoint: SchedulerMixin) -> torch.Tensor:
    """Share of the signal's variance left at each time step ("alpha bar"), float32 (steps,).

    Args:
        checkpoint: the scheduler that came with the model.
    """
    return make_scheduler(checkpoint, "ddim").alphas_cumprod.float()


def add_noise(
    schedule: torch.Tensor, latents: torch.Tensor, noise: torch.Tensor, t: int | torch.Tensor
) -> torch.Tensor:
    """Clean latents as they are at a time step: sqrt(a) * latents + sqrt(1 - a) * noise (DDPM, equation 4).

    The schedulers' own `add_noise` is not used: DPM-Solver's takes the smallest noise for a time step that is
    not among its steps, and Euler's raises.

    Args:
        schedule: see `noise_schedule`.
        latents, noise: float32 (images, channels, height, width).
        t: time step, one for all or int64 (images,).
    """
    kept = schedule.to(latents.device)[t].view(-1, 1, 1, 1)
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


@torch.no_grad()
def features_of(taps: FeatureTaps, latents: torch.Tensor, t: int, text: torch.Tensor) -> list[torch.Tensor]:
    """Features of noisy latents under a prompt; no guidance, so one evaluation of the batch.

    Args:
        latents: float (images, channels, height, width) as they are at time step t, e.g. those that a
            generation ended with (InstaGen, DiffusionEngine), or an image's after `add_noise`.
        text: float (images or 1, tokens, channels), the text encoder's states.

    Returns:
        The pyramid, float32, the largest level first.
    """
    unet = taps.unet
    states = text.to(unet.dtype).expand(len(latents), -1, -1)
    with taps.capture() as features:
        unet(latents.to(unet.dtype), t, encoder_hidden_states=states, return_dict=False)
    return features.pyramid()


@torch.no_grad()
def features_of_both(
    taps: FeatureTaps, latents: torch.Tensor, t: int, text: torch.Tensor, negative_text: torch.Tensor
) -> list[torch.Tensor]:
    """The same without and with prompt, tap by tap side by side along the channels (InstaGen, section 3.2).

    Args:
        negative_text: float (1, tokens, channels), of the empty prompt as a rule.

    Returns:
        The pyramid, float32, with twice the channels.
    """
    unet = taps.unet
    negative = negative_text.to(unet.dtype).expand(len(latents), -1, -1)
    states = torch.cat([negative, text.to(unet.dtype).expand(len(latents), -1, -1)])
    with taps.capture() as features:
        unet(latents.to(unet.dtype).repeat(2, 1, 1, 1), t, encoder_hidden_states=states, return_dict=False)
    return features.pyramid(halves="channels")
