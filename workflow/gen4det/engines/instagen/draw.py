"""From prompts to images, with the latents that enter the last denoising step (InstaGen, section 3.1)."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch

from gen4det.diffusion.guidance import guided_noise
from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.pipelines import load_text_to_image, set_precision
from gen4det.diffusion.schedulers import make_scheduler, step_options
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.diffusion.text import TextStates
from gen4det.engines import base
from gen4det.engines.instagen.settings import Settings

LATENTS = "latents"
"""Name of the stored array: float32 (channels, height, width), noisy, as it enters the last step."""
KEPT = ("set", "number", "prompt", "categories", "annotated_category_ids")
"""What a row says of its image."""


class Drawer(base.Drawer):
    """Draws with the fitted generator; labels nothing."""

    settings: Settings

    @property
    def unet_calls(self) -> int:
        """U-Net evaluations so far."""
        return self.sampler.unet_calls if "sampler" in vars(self) else 0

    @cached_property
    def sampler(self) -> "Sampler":
        """Loaded when the first batch is drawn."""
        source = ModelSource(path=str(self.inputs.models["generator"]))
        return Sampler(source, self.settings.images.denoising, self.device)

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        """See `base.Drawer.synthesize`. The record of an image says which time step its last one was."""
        negative = self.settings.images.negative_prompt
        for rows in batches:
            images, latents, last = self.sampler.draw(rows, negative)
            yield [
                base.Generated(
                    row,
                    image,
                    about={**{key: row[key] for key in KEPT}, "last_step": last},
                    arrays={LATENTS: noisy},
                )
                for row, image, noisy in zip(rows, images, latents, strict=True)
            ]


class Sampler:
    """Draws batches of prompts.

    Raises:
        InputError: the model cannot be loaded.
    """

    def __init__(self, source: ModelSource, denoising: DenoisingSettings, device: str):
        self.denoising, self.device = denoising, device
        self.pipeline = load_text_to_image(source, device)
        set_precision(self.pipeline, denoising)
        self.text = TextStates(self.pipeline)
        self.unet_calls = 0
        self.pipeline.unet.register_forward_hook(self._count)

    def _count(self, *_) -> None:
        self.unet_calls += 1

    @torch.inference_mode()
    def draw(self, rows: list[dict], negative_prompt: str = "") -> tuple[np.ndarray, np.ndarray, int]:
        """Draw one batch of square images.

        Returns:
            Images uint8 (rows, side, side, 3); latents float32 (rows, channels, cells, cells) as they enter
            the last step; the time step of that.
        """
        generators = [image_generator(row["seed"]) for row in rows]
        cells = rows[0]["side"] // self.pipeline.vae_scale_factor
        shape = (self.pipeline.unet.config.in_channels, cells, cells)
        text = torch.cat([self.text(row["prompt"]) for row in rows])
        noise = draw_noise(generators, shape, self.device)
        final, before, last = self.denoise(noise, text, self.text(negative_prompt), generators)
        return decode(self.pipeline.vae, final, "round").numpy(), before.cpu().numpy(), last

    def denoise(
        self,
        noise: torch.Tensor,
        text: torch.Tensor,
        negative_text: torch.Tensor,
        generators: list[torch.Generator] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """All steps of the sampler.

        Returns:
            Latents after and before the last step, float32 of the shape of `noise`, and its time step.
        """
        scheduler = make_scheduler(self.pipeline.scheduler, self.denoising.scheduler)
        scheduler.set_timesteps(self.denoising.steps)
        latents = noise * scheduler.init_noise_sigma
        options = step_options(scheduler, generators)
        for t in scheduler.timesteps:
            before = latents
            predicted = guided_noise(
                self.pipeline.unet,
                scheduler.scale_model_input(latents, t),
                t,
                text,
                negative_text,
                self.denoising.guidance,
                low_memory=self.denoising.low_memory,
            )
            latents = scheduler.step(predicted, t, latents, return_dict=False, **options)[0]
        return latents, before, int(t)
