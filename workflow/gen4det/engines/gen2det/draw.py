"""Gen2Det: from manifest rows to real images with other objects in their boxes."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch

from gen4det.data.references import reference_image
from gen4det.diffusion.grounded_inpainting import grounding, inpaint
from gen4det.diffusion.latent_boxes import latent_mask
from gen4det.diffusion.latents import decode, encode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.pipelines import load_grounded_inpainting, set_precision
from gen4det.diffusion.schedulers import make_scheduler
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.text import TextStates
from gen4det.engines import base
from gen4det.engines.gen2det.compositing import paint_weights, paste, resized
from gen4det.engines.gen2det.plan import latent_size
from gen4det.engines.gen2det.settings import Settings


class Drawer(base.Drawer):
    """Gen2Det (arXiv 2312.04566); training-free. Reads images and boxes of the training split only."""

    settings: Settings

    @property
    def unet_calls(self) -> int:
        """U-Net evaluations so far."""
        return self.painter.unet_calls if "painter" in vars(self) else 0

    @cached_property
    def painter(self) -> "Painter":
        """Loaded when the first batch is painted."""
        return Painter(self.settings.source(self.foundation), self.settings, self.device)

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        """See `base.Drawer.synthesize`. An image has the size of its reference, and all of its labels."""
        store = self.dataset.train.images
        for rows in batches:
            originals = [reference_image(store, row) for row in rows]
            images = self.painter.paint(rows, originals)
            yield [
                base.Generated(row, image, labels(row, self.settings.paste_back), about=reference(row))
                for row, image in zip(rows, images, strict=True)
            ]


class Painter:
    """Paints batches of real images.

    Raises:
        InputError: the model cannot be loaded or is not made for grounded inpainting.
    """

    def __init__(self, source: ModelSource, settings: Settings, device: str):
        self.settings = settings
        self.device = device
        self.pipeline = load_grounded_inpainting(source, device)
        set_precision(self.pipeline, settings.denoising)
        self.text = TextStates(self.pipeline, keep=256)  # prompts are as many as images
        self.cells = latent_size(settings, self.pipeline.vae_scale_factor)
        self.unet_calls = 0
        self.pipeline.unet.register_forward_hook(self._count)

    def _count(self, *_) -> None:
        self.unet_calls += 1

    def paint(self, rows: list[dict], originals: list[np.ndarray]) -> list[np.ndarray]:
        """Paint one batch.

        Args:
            rows: manifest rows.
            originals: their references, uint8 (H, W, 3) of any sizes.

        Returns:
            For each row uint8 of the shape of its original.
        """
        size, settings = self.settings.size, self.settings
        masks = [latent_mask(painted_boxes(row), (row["height"], row["width"]), self.cells) for row in rows]
        known = np.stack([resized(image, size.height, size.width) for image in originals])
        results = []
        for original, painted, mask in zip(originals, self._diffuse(rows, known, masks), masks, strict=True):
            height, width = original.shape[:2]
            painted = resized(painted, height, width)
            if settings.paste_back:
                weights = paint_weights(mask, height, width, settings.feather)
                painted = paste(original, painted, weights)
            results.append(painted)
        return results

    @torch.inference_mode()
    def _diffuse(self, rows: list[dict], known: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
        """Images uint8 (rows, H, W, 3) of the model's size, their boxes painted."""
        pipeline, denoising = self.pipeline, self.settings.denoising
        generators = [image_generator(row["seed"]) for row in rows]
        shape = (pipeline.vae.config.latent_channels, *self.cells)
        noise = draw_noise(generators, shape, self.device)
        phrases = [
            [self.text.pooled(entry["phrase"]) for entry in row["objects"] if entry["role"] == "painted"]
            for row in rows
        ]
        latents = inpaint(
            pipeline.unet,
            make_scheduler(pipeline.scheduler, denoising.scheduler),
            noise,
            encode(pipeline.vae, known, draw_noise(generators, shape, self.device)),
            torch.from_numpy(np.stack(masks))[:, None].to(self.device),
            torch.cat([self.text(row["prompt"]) for row in rows]),
            self.text(self.settings.negative_prompt),
            grounding(
                [painted_boxes(row) for row in rows],
                phrases,
                [(row["height"], row["width"]) for row in rows],
                self.device,
            ),
            steps=denoising.steps,
            guidance=denoising.guidance,
            scheduled_sampling=self.settings.scheduled_sampling,
            low_memory=denoising.low_memory,
            generators=generators,
        )
        return decode(pipeline.vae, latents, "round").numpy()


def reference(row: dict) -> dict:
    """Which real image was painted anew, and the number of this picture among all that show it, from 0."""
    return {key: row[key] for key in ("reference_image_id", "number")}


def painted_boxes(row: dict) -> list[list[float]]:
    """Boxes of a row that are painted, [x, y, width, height] in pixels of the reference."""
    return [entry["bbox"] for entry in row["objects"] if entry["role"] == "painted"]


def labels(row: dict, pasted: bool) -> list[base.Instance]:
    """Labels of the reference, unchanged and in their order; boxes only, since the outlines are new.

    Args:
        pasted: whether what was not painted shows the real image's own pixels.
    """
    return [
        base.Instance(
            entry["category_id"],
            entry["bbox"],
            untouched=pasted and entry["role"] == "kept",
            crowd=entry["role"] == "crowd",
        )
        for entry in row["objects"]
    ]
