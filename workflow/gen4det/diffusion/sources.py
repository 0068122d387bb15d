"""Where a pretrained model lies, and what its folder says without its weights. Nothing here imports torch."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from transformers import CLIPTokenizer
from transformers.utils import cached_file

from gen4det.core.errors import InputError
from gen4det.diffusion.settings import ModelSource

T = TypeVar("T")


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


def load_config(source: ModelSource | None, part: str) -> dict:
    """Configuration of one part of a pipeline: "unet", "vae", ...

    Raises:
        InputError: as `locate`, or it is missing or no JSON.
    """
    location = locate(source)
    path = location.pop("pretrained_model_name_or_path")
    file = reading(source, lambda: cached_file(path, "config.json", subfolder=part, **location))
    return reading(source, lambda: json.loads(Path(file).read_bytes()))


def load_tokenizer(source: ModelSource | None) -> CLIPTokenizer:
    """The tokenizer of a pipeline; needs no weights.

    Raises:
        InputError: as `locate`, or files are missing or damaged.
    """
    location = locate(source)
    path = location.pop("pretrained_model_name_or_path")
    return reading(source, lambda: CLIPTokenizer.from_pretrained(path, subfolder="tokenizer", **location))


def latent_cell(source: ModelSource | None) -> int:
    """Side in pixels of one latent cell (8 for Stable Diffusion), from the autoencoder's configuration alone.

    Raises:
        InputError: as `load_config`.
    """
    config = load_config(source, "vae")
    return reading(source, lambda: 2 ** (len(config["block_out_channels"]) - 1))


def check_grounded(source: ModelSource) -> None:
    """Refuse a U-Net that is not made for grounded inpainting, from its configuration alone.

    Raises:
        InputError: it does not take latents, known latents and mask together (9 channels), or has neither
            gated self-attention nor a position net for boxes and phrases; or as `load_config`.
    """
    config = load_config(source, "unet")
    expected = 2 * config["out_channels"] + 1
    if config["in_channels"] != expected:
        raise InputError(
            f"{source.path}: unet: {config['in_channels']} input channels, expected {expected} "
            "(latents, known latents, mask); this is no inpainting model"
        )
    attention = config.get("attention_type", "default")
    if attention != "gated":
        raise InputError(
            f"{source.path}: unet: attention_type {attention!r}, expected 'gated': it has no gated "
            "self-attention and position net for boxes with phrases (GLIGEN, box and text)"
        )


def reading(source: ModelSource, read: Callable[[], T]) -> T:
    """Run a reader; any defect of a folder becomes one line that names it."""
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{source.path}: cannot be loaded: {lines[0]}") from error
