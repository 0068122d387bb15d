"""Pictures of a single object, drawn by the miniature's text-to-image model after a category's prompt."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from gen4det.core.provenance import seed_for
from gen4det.miniature.canvas_judge_settings import CanvasJudge
from gen4det.miniature.categories import Category


class SingleSampler:
    """diffusers' own pipeline in float32; the noise is drawn on the CPU, from seeds of the judge's own."""

    def __init__(self, model: Path, settings: CanvasJudge, device: str):
        self.settings = settings
        self.pipeline = StableDiffusionPipeline.from_pretrained(
            model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        ).to(device)
        self.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(self.pipeline.scheduler.config)
        self.pipeline.set_progress_bar_config(disable=True)

    @property
    def side(self) -> int:
        """Side of a picture in pixels: what the model was trained at."""
        return self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor

    def __call__(self, category: Category) -> np.ndarray:
        """uint8 (samples, side, side, 3)."""
        count = self.settings.samples
        generators = [
            torch.Generator("cpu").manual_seed(seed_for(self.settings.seed, "sample", category.name, index))
            for index in range(count)
        ]
        images = self.pipeline(
            [f"a photo of a single {category.name}, {category.definition}"] * count,
            height=self.side, width=self.side, num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance, generator=generators, output_type="np",
        ).images  # fmt: skip
        return (images * 255).round().astype(np.uint8)
