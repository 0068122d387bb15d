"""DetDiffusion: from prompts that name boxes to images; labels are the boxes that were asked for."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from gen4det.data.model_settings import ModelSource
from gen4det.diffusion.guidance import guided_noise
from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.pipelines import load_text_to_image, set_precision
from gen4det.diffusion.schedulers import make_scheduler, step_options
from gen4det.diffusion.text import TextStates
from gen4det.engines import base
from gen4det.engines.detdiffusion.settings import Settings
from gen4det.engines.detdiffusion.sizes import latent_cells
from gen4det.engines.detdiffusion.words import require_grid


class Drawer(base.Drawer):
    """Draws with the fitted generator; an image has the size of the real one whose layout it has."""

    settings: Settings

    @property
    def unet_calls(self) -> int:
        """U-Net evaluations so far."""
        return self.generator.unet_calls if "generator" in vars(self) else 0

    @cached_property
    def generator(self) -> "Generator":
        """Loaded when the first batch is drawn."""
        return Generator(ModelSource(path=str(self.inputs.models["generator"])), self.settings, self.device)

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        """See `base.Drawer.synthesize`."""
        for rows in batches:
            images = self.generator.draw(rows)
            yield [
                base.Generated(row, image, labels(row), about=about(row))
                for row, image in zip(rows, images, strict=True)
            ]


class Generator:
    """A fitted pipeline.

    Raises:
        InputError: it cannot be loaded, or was fitted with another grid.
    """

    def __init__(self, source: ModelSource, settings: Settings, device: str):
        self.settings, self.device = settings, device
        self.pipeline = load_text_to_image(source, device)
        require_grid(self.pipeline.tokenizer, settings.words, where=source.path)
        set_precision(self.pipeline, settings.denoising)
        self.text = TextStates(self.pipeline, keep=64)  # hardly any prompt comes twice
        self.cells = latent_cells((settings.size.height, settings.size.width), self.pipeline.vae_scale_factor)
        self.unet_calls = 0
        self.pipeline.unet.register_forward_hook(self._count)

    def _count(self, *_) -> None:
        self.unet_calls += 1

    @torch.inference_mode()
    def draw(self, rows: list[dict]) -> list[np.ndarray]:
        """Draw one batch: for each row uint8 (height, width, 3), in the row's size."""
        pipeline, denoising = self.pipeline, self.settings.denoising
        generators = [image_generator(row["seed"]) for row in rows]
        shape = (pipeline.vae.config.latent_channels, *self.cells)
        scheduler = make_scheduler(pipeline.scheduler, denoising.scheduler)
        scheduler.set_timesteps(denoising.steps, device=self.device)
        latents = draw_noise(generators, shape, self.device) * scheduler.init_noise_sigma
        text, negative = torch.cat([self.text(row["prompt"]) for row in rows]), self.text("")
        options = step_options(scheduler, generators)
        for t in scheduler.timesteps:
            noise = guided_noise(
                pipeline.unet,
                scheduler.scale_model_input(latents, t),
                t,
                text,
                negative,
                denoising.guidance,
                low_memory=denoising.low_memory,
            )
            latents = scheduler.step(noise, t, latents, **options).prev_sample
        drawn = decode(pipeline.vae, latents, "round").numpy()
        return [resized(image, row["height"], row["width"]) for image, row in zip(drawn, rows, strict=True)]


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image, uint8 (H, W, 3), at another size."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def labels(row: dict) -> list[base.Instance]:
    """The objects that were asked for; boxes only, since nobody says where in them an object is."""
    return [base.Instance(entry["category_id"], entry["bbox"]) for entry in row["objects"]]


def about(row: dict) -> dict:
    """Whose layout it is, and the attributes of its objects in their order."""
    attributes = [entry["attribute"] for entry in row["objects"]]
    return {
        "reference_image_id": row["reference_image_id"],
        "number": row["number"],
        "attributes": attributes,
    }
