"""MosaicFusion: from manifest rows to images with instance masks."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import cached_property

import numpy as np
import torch

from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.pipelines import load_text_to_image, set_precision
from gen4det.diffusion.schedulers import make_scheduler
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.text import TextStates
from gen4det.engines import base
from gen4det.engines.mosaicfusion.canvas import CanvasRegion, denoise
from gen4det.engines.mosaicfusion.refinement import RegionLabel, labelling
from gen4det.engines.mosaicfusion.settings import Settings

Heat = dict[int, np.ndarray]
"""Attention maps of one region of one image: down-sampling factor -> float32 (h, w)."""


class Drawer(base.Drawer):
    """MosaicFusion (arXiv 2309.13042); training-free."""

    settings: Settings

    @property
    def unet_calls(self) -> int:
        """U-Net evaluations so far."""
        return self.sampler.unet_calls if "sampler" in vars(self) else 0

    @cached_property
    def sampler(self) -> "CanvasSampler":
        """Loaded when the first batch is drawn."""
        return CanvasSampler(self.settings.source(self.foundation), self.settings, self.device)

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        """See `base.Drawer.synthesize`. One batch is labelled by the workers while the next is drawn."""
        with labelling(self.workers) as start:
            waiting = None
            for rows in batches:
                images, heats = self.sampler.draw(rows)
                labels = [
                    [
                        start(
                            heat,
                            crop(image, region["box"]),
                            region["box"],
                            image.shape[:2],
                            self.settings.masks,
                        )
                        for region, heat in zip(row["regions"], heats_of_image, strict=True)
                    ]
                    for row, image, heats_of_image in zip(rows, images, heats, strict=True)
                ]
                if waiting is not None:
                    yield self._collect(*waiting)
                waiting = rows, images, labels
            if waiting is not None:
                yield self._collect(*waiting)

    def _collect(
        self, rows: list[dict], images: np.ndarray, labels: list[list["Future[RegionLabel]"]]
    ) -> list[base.Generated]:
        generated = []
        for row, image, futures in zip(rows, images, labels, strict=True):
            instances, rejected = [], []
            for region, future in zip(row["regions"], futures, strict=True):
                label, category = future.result(), region["category_id"]
                if label.reason is None:
                    instances.append(base.Instance(category, label.bbox, label.rle))
                else:
                    rejected.append({"reason": label.reason, "category_id": category, "bbox": region["box"]})
            keep = bool(instances) and not (rejected and self.settings.drop_image)
            about = {"number": row["number"]}
            generated.append(base.Generated(row, image, instances, rejected, keep, about))
        return generated


class CanvasSampler:
    """Draws batches of canvases and records where their objects are attended to.

    Raises:
        InputError: the model cannot be loaded or has no cross-attention where it is to be read.
    """

    def __init__(self, source: ModelSource | None, settings: Settings, device: str):
        self.settings = settings
        self.device = device
        self.pipeline = load_text_to_image(source, device)
        set_precision(self.pipeline, settings.denoising)
        self.text = TextStates(self.pipeline)
        self.recorder = CrossAttentionRecorder(
            self.pipeline.unet, settings.attention_resolutions, settings.attention_mid_block
        )
        self.unet_calls = 0
        self.pipeline.unet.register_forward_hook(self._count)

    def _count(self, *_) -> None:
        self.unet_calls += 1

    @torch.inference_mode()
    def draw(self, rows: list[dict]) -> tuple[np.ndarray, list[list[Heat]]]:
        """Draw one batch.

        Args:
            rows: manifest rows whose canvases are cut alike.

        Returns:
            uint8 (rows, H, W, 3) and, for each row and region, its attention maps.
        """
        settings, pipeline = self.settings, self.pipeline
        cell = pipeline.vae_scale_factor
        boxes = [tuple(region["box"]) for region in rows[0]["regions"]]
        if any([tuple(region["box"]) for region in row["regions"]] != boxes for row in rows):
            raise ValueError("the canvases of one batch must be cut alike")
        generators = [image_generator(row["seed"]) for row in rows]
        shape = (pipeline.unet.config.in_channels, rows[0]["height"] // cell, rows[0]["width"] // cell)
        regions = [self._region([row["regions"][i] for row in rows], cell) for i in range(len(boxes))]
        latents = denoise(
            pipeline.unet,
            make_scheduler(pipeline.scheduler, settings.denoising.scheduler),
            draw_noise(generators, shape, self.device),
            regions,
            self.text(""),
            steps=settings.denoising.steps,
            guidance=settings.denoising.guidance,
            blend=settings.blend,
            low_memory=settings.denoising.low_memory,
            generators=generators,
            recorder=self.recorder,
            recorded_steps=settings.attention_steps,
        )
        images = decode(pipeline.vae, latents, settings.rounding).numpy()
        by_region = [region.maps.maps() for region in regions]
        return images, [list(heats) for heats in zip(*by_region, strict=True)]

    def _region(self, regions: list[dict], cell: int) -> CanvasRegion:
        """The same region of all canvases of a batch."""
        x, y, width, height = (length // cell for length in regions[0]["box"])
        return CanvasRegion(
            rows=slice(y, y + height),
            columns=slice(x, x + width),
            text=torch.cat([self.text(region["prompt"]) for region in regions]),
            maps=TokenMaps(
                [region["tokens"] for region in regions],
                "max" if self.settings.token == "max" else "mean",
                (height, width),
                self.recorder.factors,
                self.device,
            ),
        )


def crop(image: np.ndarray, box: list[int]) -> np.ndarray:
    """The part of an image inside a box [x, y, width, height]."""
    x, y, width, height = box
    return image[y : y + height, x : x + width]
