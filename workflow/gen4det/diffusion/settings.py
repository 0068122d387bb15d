"""Where the pretrained models come from, and how they are sampled."""

from typing import Annotated, Literal

from pydantic import Field

from gen4det.core.settings import Settings
from gen4det.data.model_settings import ModelSource


class FoundationSettings(Settings):
    """The pretrained models that engines and filters start from; only what is used needs to be given."""

    diffusion: ModelSource | None = None
    """Text-to-image pipeline with the layout of StableDiffusionPipeline."""
    inpainting: ModelSource | None = None
    """Grounded inpainting pipeline (9-channel U-Net, boxes as condition)."""
    clip: ModelSource | None = None
    """CLIP text and image encoder."""
    aesthetic: ModelSource | None = None
    """Aesthetic predictor on CLIP's image embeddings: a folder with model.safetensors, or with the public
    predictor's .pth file. It belongs to the `clip` above."""


class DenoisingSettings(Settings):
    """How a latent is denoised."""

    scheduler: Literal["checkpoint", "lms", "pndm", "ddim", "dpm-solver++", "euler"] = "checkpoint"
    """Sampler. "checkpoint": the one that comes with the model."""
    steps: Annotated[int, Field(ge=1)] = 50
    guidance: Annotated[float, Field(ge=0)] = 7.5
    """Weight of classifier-free guidance; 1 is none."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the U-Net. The scheduler, the autoencoder and all sums stay in float32. float32 means
    float32 in matrix products and convolutions; tf32, on a GPU, rounds the factors of both, in all models of
    the process."""
    low_memory: bool = False
    """Evaluate the U-Net with and without prompt one after the other instead of in one call."""
