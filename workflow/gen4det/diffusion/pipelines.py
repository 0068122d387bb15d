"""Load text-to-image models in the layout of diffusers' StableDiffusionPipeline.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.errors import InputError

T = TypeVar("T")

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_text_to_image(source: ModelSource | None, device: str = "cpu") -> StableDiffusionPipeline:
    """Load a pipeline in float32, without safety checker and image encoder.

    Raises:
        InputError: no source, no such folder, a hub id without revision, another kind of pipeline, or files
            that are missing or damaged.
    """
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()  # of files being read; the stages report progress in images
    location = locate(source)
    kind = _reading(source, lambda: StableDiffusionPipeline.load_config(**location))["_class_name"]
    if kind != StableDiffusionPipeline.__name__:
        raise InputError(f"{source.path}: holds a {kind}, expected a {StableDiffusionPipeline.__name__}")
    pipeline = _reading(
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
        ),
    )
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False).eval()
    return pipeline.to(device)


def set_precision(pipeline: StableDiffusionPipeline, settings: DenoisingSettings) -> None:
    """Cast the U-Net; text encoder and autoencoder stay in float32.

    "tf32" is a property of the process: matrix products of float32 use it wherever the device has it.
    """
    dtype = PRECISIONS[settings.precision]
    if pipeline.unet.dtype != dtype:
        pipeline.unet.to(dtype)
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")


def load_tokenizer(source: ModelSource | None) -> CLIPTokenizer:
    """The tokenizer of a pipeline; needs no weights.

    Raises:
        InputError: as `load_text_to_image`.
    """
    location = locate(source)
    path = location.pop("pretrained_model_name_or_path")
    return _reading(source, lambda: CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **location))


def latent_cell(source: ModelSource | None) -> int:
    """Side in pixels of one latent cell (8 for Stable Diffusion), from the autoencoder's configuration alone.

    Raises:
        InputError: as `load_text_to_image`.
    """
    config = _reading(source, lambda: AutoencoderKL.load_config(subfolder="vae", **locate(source)))
    return 2 ** (len(config["block_out_channels"]) - 1)


def locate(source: ModelSource | None) -> dict:
    """Keyword arguments that name a model to `from_pretrained` and its kin.

    Raises:
        InputError: no source, no such folder, or a hub id without revision.
    """
    if source is None:
        raise InputError("foundation.diffusion: no model given; expected a folder or a hub id with revision")
    if Path(source.path).is_dir():
        return {"pretrained_model_name_or_path": source.path, "revision": None}
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source.path):
        raise InputError(f"{source.path}: no such folder")
    if source.revision is None:
        raise InputError(f"{source.path}: no such folder, and a hub id needs a revision (commit)")
    return {"pretrained_model_name_or_path": source.path, "revision": source.revision}


def _reading(source: ModelSource, read: Callable[[], T]) -> T:
    """Run a reader; whatever a folder can be wrong in becomes one line that names it."""
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{source.path}: cannot be loaded: {lines[0]}") from error
