"""CLIP's image tower: pictures to embeddings (Radford et al. 2021).

The preprocessing is the model's own, read from `preprocessor_config.json` and done with Pillow: the library's
default one asks for torchvision.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import CLIPVisionModelWithProjection
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from gen4det.core.errors import InputError

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the image tower sees it."""

    shortest_edge: int
    """Pixels the shorter side is scaled to."""
    crop: tuple[int, int]
    """Height and width in pixels of what is cut from the centre then."""
    resample: int
    """Pillow's number of the interpolation; 3 is bicubic."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the three channels, in [0, 1]."""

    @classmethod
    def parse(cls, values: dict, source: str | Path) -> "Preprocessing":
        """From the contents of `preprocessor_config.json`, in its newer or older spelling.

        Raises:
            InputError: another kind of preprocessing.
        """
        try:
            size, crop = values["size"], values["crop_size"]
            edge = size if isinstance(size, int) else size["shortest_edge"]
            crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
            mean, std = tuple(values["image_mean"]), tuple(values["image_std"])
            resample = int(values.get("resample", Image.Resampling.BICUBIC))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source}: not the preprocessing of a CLIP model: {error!r}") from error
        if not max(crop) <= edge:
            raise InputError(f"{source}: crop_size {max(crop)} is larger than size {edge}")
        return cls(edge, crop, resample, mean, std)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Pixels float32 (3, H, W) of an image, uint8 (H, W, 3) RGB."""
        picture = Image.fromarray(image)
        width, height = picture.size
        short, long = sorted((width, height))
        longer = int(self.shortest_edge * long / short)
        target = (self.shortest_edge, longer) if width <= height else (longer, self.shortest_edge)
        pixels = np.asarray(picture.resize(target, self.resample), np.float32)
        top, left = ((side - cut) // 2 for side, cut in zip(pixels.shape, self.crop, strict=False))
        pixels = pixels[top : top + self.crop[0], left : left + self.crop[1]] / 255
        pixels = (pixels - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ImageEncoder:
    """Image tower with its preprocessing.

    Args:
        path: a folder, or a model id on the Hugging Face hub, in transformers' format; text tower ignored.
        revision: commit on the hub; None for folders.

    Raises:
        InputError: files are missing, damaged, or of another kind of model.
    """

    def __init__(self, path: str, revision: str | None = None, device: str = "cpu"):
        self.device = device
        transformers_logging.disable_progress_bar()  # of files being read
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # or it lists every tensor of the text tower
        try:
            self.preprocess = Preprocessing.parse(_read_json(path, PREPROCESSING, revision), path)
            kind = _read_json(path, CONFIG, revision).get("model_type")
            if kind not in ("clip", "clip_vision_model"):
                raise InputError(f"{path}: holds a model of type {kind!r}, expected a CLIP model")
            self.model = CLIPVisionModelWithProjection.from_pretrained(
                path, revision=revision, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"{path}: cannot be loaded: {lines[0]}") from error
        finally:
            transformers_logging.set_verbosity(verbosity)
        self.model.requires_grad_(False).eval().to(device)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Embeddings, float32 (N, width), not normalised, of preprocessed images (N, 3, H, W)."""
        return self.model(pixel_values=torch.from_numpy(pixels).to(self.device)).image_embeds


def _read_json(path: str, name: str, revision: str | None) -> dict:
    file = cached_file(path, name, revision=revision)
    return json.loads(Path(file).read_bytes())
