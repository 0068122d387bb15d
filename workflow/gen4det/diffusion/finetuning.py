"""The loss that text-to-image models are trained with, with room for a second one.

A function of what is given: noise and time steps come from the caller, so that a training is a function of
its seeds. What is trained is whatever requires gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from torch import Tensor

from gen4det.core.errors import InputError
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.replay import add_noise, noise_schedule

SecondLoss = Callable[[Tensor, Tensor, list[Tensor]], Tensor]
"""(prediction, time steps, features) -> loss of each image, (images,), already weighted. The prediction is
float32 (images, channels, height, width), the time steps int64 (images,), the features those of the taps."""


@dataclass(frozen=True)
class Losses:
    """Losses of a batch: `total` is to be differentiated, the parts, detached, are to be shown."""

    total: Tensor
    noise: Tensor
    second: Tensor | None = None


class NoisePrediction:
    """Noise-prediction loss of one model (DDPM, equation 14; latent diffusion, equation 3).

    Args:
        checkpoint: the scheduler that came with the model; it says what the U-Net predicts.
        min_snr: gamma of min-SNR weighting (Hang et al. 2023): no time step weighs more than gamma signal to
            noise; None weighs all alike.
        taps: where features for a second loss come from; of the U-Net that is trained.
        second: the second loss.

    Raises:
        InputError: the U-Net predicts neither noise nor velocity.
    """

    def __init__(
        self,
        checkpoint: SchedulerMixin,
        *,
        min_snr: float | None = None,
        taps: FeatureTaps | None = None,
        second: SecondLoss | None = None,
    ):
        self.kind = checkpoint.config.prediction_type
        if self.kind not in ("epsilon", "v_prediction"):
            raise InputError(f"U-Net that predicts {self.kind!r}: expected 'epsilon' or 'v_prediction'")
        self.schedule = noise_schedule(checkpoint)
        self.min_snr = min_snr
        self.taps = taps
        self.second = second

    @property
    def steps(self) -> int:
        """Number of time steps that noise is drawn for, 1000 in Stable Diffusion."""
        return len(self.schedule)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise and time steps of a batch, on the CPU.

        Args:
            shape: of the latents.
            generator: on the CPU, e.g. seeded by the training's seed and iteration.

        Returns:
            Standard normal float32 of that shape, and int64 (images,) uniform in [0, steps).
        """
        noise = torch.randn(shape, generator=generator)
        return noise, torch.randint(self.steps, shape[:1], generator=generator)

    def __call__(
        self,
        unet: UNet2DConditionModel,
        latents: Tensor,
        text: Tensor,
        noise: Tensor,
        t: Tensor,
        *,
        weights: Tensor | None = None,
    ) -> Losses:
        """Losses of a batch, means over its images.

        Args:
            latents, noise: float32 (images, channels, height, width).
            text: float (images, tokens, channels).
            t: int64 (images,).
            weights: float32 (images, 1, height, width) of the squared error, e.g. more where objects are;
                None weighs all cells alike. Their mean is not divided by.
        """
        noisy = add_noise(self.schedule, latents, noise, t)
        kept = self.schedule.to(latents.device)[t]
        if self.taps is None:
            predicted, features = self._predict(unet, noisy, t, text), []
        else:
            with self.taps.capture() as captured:
                predicted = self._predict(unet, noisy, t, text)
            features = captured.pyramid()
        error = (predicted - self._target(latents, noise, kept)).square()
        if weights is not None:
            error = error * weights
        per_image = error.flatten(1).mean(1) * self._importance(kept)
        total = noise_loss = per_image.mean()
        second = None
        if self.second is not None:
            second = self.second(predicted, t, features).mean()
            total = total + second
        return Losses(total, noise_loss.detach(), None if second is None else second.detach())

    @staticmethod
    def _predict(unet: UNet2DConditionModel, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return unet(noisy, t, encoder_hidden_states=text, return_dict=False)[0].float()

    def _target(self, latents: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
        if self.kind == "epsilon":
            return noise
        kept = kept.view(-1, 1, 1, 1)
        return kept.sqrt() * noise - (1 - kept).sqrt() * latents

    def _importance(self, kept: Tensor) -> Tensor:
        """Weight of each image for its time step, (images,)."""
        if self.min_snr is None:
            return torch.ones_like(kept)
        ratio = kept / (1 - kept)
        weight = ratio.clamp(max=self.min_snr)
        return weight / (ratio if self.kind == "epsilon" else ratio + 1)
