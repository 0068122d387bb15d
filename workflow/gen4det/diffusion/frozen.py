"""A frozen text-to-image model as a feature extractor for images (DiffusionEngine, section 3.2).

An image becomes latents, gets the noise of time step 1, and passes the U-Net once under the empty prompt;
its blocks' outputs are the features. No guidance, so no second copy of the batch, and the empty prompt is
encoded once.
"""

import functools
import hashlib

import torch
from diffusers import StableDiffusionPipeline

from gen4det.core.errors import InputError
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.pipelines import PRECISIONS, load_text_to_image
from gen4det.diffusion.replay import add_noise, features_of, noise_schedule
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.text import TextStates

TIME_STEP = 1
"""Where the features are taken: a signal of 0.998 of the variance in Stable Diffusion."""


class FrozenFeatures:
    """Features of images from one model. No `nn.Module`, so that nothing that holds it trains, saves,
    averages or moves the model; copies share it.

    Args:
        pipeline: in float32; its text encoder is used once, its U-Net is cast to the precision.
        precision: arithmetic of the U-Net, a key of PRECISIONS. Autoencoder and features stay in float32.

    Raises:
        InputError: a U-Net of another build than Stable Diffusion's, or of other input than latents.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, precision: str = "float32"):
        unet, vae = pipeline.unet, pipeline.vae
        if unet.config.in_channels != vae.config.latent_channels:
            raise InputError(
                f"U-Net of {unet.config.in_channels} input channels: expected the "
                f"{vae.config.latent_channels} of the autoencoder's latents"
            )
        self.fingerprint = fingerprint(pipeline)
        self.null_text = TextStates(pipeline)("")
        self.schedule = noise_schedule(pipeline.scheduler)
        self.unet = unet.requires_grad_(False).eval()
        self.vae = vae.requires_grad_(False).eval()
        self.taps = FeatureTaps(self.unet, "blocks")
        self.channels = self.taps.channels()
        self.cell = pipeline.vae_scale_factor
        if self.unet.dtype != PRECISIONS[precision]:
            self.unet.to(PRECISIONS[precision])
        self.precision = precision

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.unet.device

    def to(self, device: torch.device) -> None:
        """Move the model; nothing is done where it is there already."""
        if self.device != device:
            self.unet.to(device)
            self.vae.to(device)
            self.null_text = self.null_text.to(device)

    def __deepcopy__(self, memo: dict) -> "FrozenFeatures":
        return self

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image, in latent cells.

        Raises:
            InputError: sides that are no whole cells.
        """
        if height % self.cell or width % self.cell:
            raise InputError(
                f"image of {width} x {height} px: the diffusion model sees cells of {self.cell} px; set "
                f"pad_size_divisor={self.cell} in the data_preprocessor"
            )
        return self.vae.config.latent_channels, height // self.cell, width // self.cell

    @torch.no_grad()
    def __call__(
        self, pixels: torch.Tensor, posterior: torch.Tensor, noise: torch.Tensor
    ) -> list[torch.Tensor]:
        """Features of images.

        Args:
            pixels: float32 (images, 3, height, width), RGB in [-1, 1], sides in whole latent cells.
            posterior: standard normal float32 (images, *latent_shape), samples the autoencoder's posterior.
            noise: the same, of the time step.

        Returns:
            float32 (images, self.channels[k], height, width) for each level k; level 0 has the latents' size,
            each further one half of it, rounded up.
        """
        latents = []
        for image, sample in zip(pixels, posterior, strict=True):  # one by one: memory, and the same last bit
            found = self.vae.encode(image[None]).latent_dist
            latents.append(found.mean[0] + found.std[0] * sample)
        clean = torch.stack(latents) * self.vae.config.scaling_factor
        noisy = add_noise(self.schedule, clean, noise, TIME_STEP)
        return features_of(self.taps, noisy, TIME_STEP, self.null_text)


def fingerprint(pipeline: StableDiffusionPipeline) -> str:
    """Hash (16 hex digits) of what the features of a model depend on: weights in float32 and noise schedule.

    Nothing that is computed goes in, since another machine computes another last bit.
    """
    noise = pipeline.scheduler.config
    names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "trained_betas")
    about = [str(noise.get(name)) for name in names] + [str(pipeline.vae.config.scaling_factor)]
    digest = hashlib.sha256("\0".join(about).encode())
    for part in ("unet", "vae", "text_encoder"):
        for name, value in sorted(getattr(pipeline, part).state_dict().items()):
            digest.update(f"{part} {name} {tuple(value.shape)}".encode())
            digest.update(value.float().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _load(path: str, revision: str | None, precision: str) -> FrozenFeatures:
    return FrozenFeatures(load_text_to_image(ModelSource(path=path, revision=revision)), precision)


def load_frozen(source: ModelSource, precision: str = "float32") -> FrozenFeatures:
    """The features of a model in a folder; read once in a process, however many ask.

    Raises:
        InputError: as `load_text_to_image` and `FrozenFeatures`.
    """
    return _load(source.path, source.revision, precision)
