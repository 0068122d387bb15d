"""CLIP's image tower: pictures to embeddings (Radford et al. 2021).

The preprocessing is the model's own, read from `preprocessor_config.json`, by that processor of transformers
which works with Pillow: the other one asks for torchvision.
"""

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection, PretrainedConfig
from transformers.utils import logging as transformers_logging

from gen4det.core.errors import InputError

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"


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
            self.processor = CLIPImageProcessorPil.from_pretrained(path, revision=revision)
            kind = PretrainedConfig.get_config_dict(path, revision=revision)[0].get("model_type")
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
        side, crop = self.model.config.image_size, self.processor.crop_size
        if (crop["height"], crop["width"]) != (side, side):
            raise InputError(
                f"{path}: {PREPROCESSING} cuts images to {crop['height']} x {crop['width']} px, "
                f"the image tower takes {side} x {side} px"
            )
        self.model.requires_grad_(False).eval().to(device)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.model.config.projection_dim

    def preprocess(self, image: np.ndarray) -> np.ndarray:
        """Pixels float32 (3, H, W) of an image, uint8 (H, W, 3) RGB, of any size."""
        pixels = self.processor(image, input_data_format="channels_last", return_tensors="np")
        return pixels["pixel_values"][0]

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Embeddings, float32 (N, width), not normalised, of preprocessed images (N, 3, H, W)."""
        return self.model(pixel_values=torch.from_numpy(pixels).to(self.device)).image_embeds
