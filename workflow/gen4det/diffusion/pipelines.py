"""Load text-to-image and grounded inpainting models in the folder layout of diffusers.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from gen4det.core.errors import InputError
from gen4det.core.precision import set_float32_arithmetic
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.diffusion.sources import check_grounded, locate, reading

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_text_to_image(
    source: ModelSource | None, device: str = "cpu", **parts: torch.nn.Module
) -> StableDiffusionPipeline:
    """Load a pipeline in float32, without safety checker and image encoder.

    Args:
        parts: those that are there already, by name, e.g. `unet`; they stay as they are but for the device.

    Raises:
        InputError: no source, no such folder, a hub id without revision, another kind of pipeline, or files
            that are missing or damaged.
    """
    return _load_pipeline(source, StableDiffusionPipeline.__name__, device, **parts)


def load_grounded_inpainting(source: ModelSource, device: str = "cpu") -> StableDiffusionPipeline:
    """Load the parts of a GLIGEN inpainting model (box and text, arXiv 2301.07093) in float32.

    Such folders say that they hold a StableDiffusionGLIGENPipeline. That class is among diffusers'
    deprecated ones and is not needed: the parts are those of a StableDiffusionPipeline, which only holds
    them here, plus a position net and gated self-attention inside the U-Net.

    Raises:
        InputError: as `load_text_to_image` and `check_grounded`, or the file of weights lacks some.
    """
    check_grounded(source)
    location = locate(source)
    path = location.pop("pretrained_model_name_or_path")
    unet, found = reading(
        source,
        lambda: UNet2DConditionModel.from_pretrained(
            path,
            subfolder="unet",
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,  # lists missing weights instead of leaving them without memory
            **location,
        ),
    )
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise InputError(f"{source.path}: unet: {len(missing)} weights are missing, e.g. {missing[0]}")
    return _load_pipeline(source, "StableDiffusionGLIGENPipeline", device, unet=unet)


def _load_pipeline(
    source: ModelSource | None, kind: str, device: str, **parts: torch.nn.Module
) -> StableDiffusionPipeline:
    """Load the parts of a StableDiffusionPipeline from a folder of this kind; `parts` are there already."""
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()  # of files being read; the stages report progress in images
    location = locate(source)
    found = reading(source, lambda: StableDiffusionPipeline.load_config(**location))["_class_name"]
    if found != kind:
        raise InputError(f"{source.path}: holds a {found}, expected a {kind}")
    pipeline = reading(
        source,
        lambda: StableDiffusionPipeline.from_pretrained(
            location["pretrained_model_name_or_path"],
            revision=location["revision"],
            dtype=torch.float32,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            feature_extractor=None,  # with image_encoder: only for image prompts; would want torchvision
            image_encoder=None,
            **parts,
        ),
    )
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False).eval()
    return pipeline.to(device)


def set_precision(pipeline: StableDiffusionPipeline, settings: DenoisingSettings) -> None:
    """Cast the U-Net; text encoder and autoencoder stay in float32.

    "tf32" is a property of the process: all its products of float32 are rounded so where the device can.
    """
    dtype = PRECISIONS[settings.precision]
    if pipeline.unet.dtype != dtype:
        pipeline.unet.to(dtype)
    set_float32_arithmetic(settings.precision)
