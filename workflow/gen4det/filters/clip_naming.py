"""Whether CLIP calls an object by the name of its category: among all names, is its own the nearest?"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from gen4det.core.errors import InputError
from gen4det.filters.clip import ImageEncoder

TEMPLATE = "a photo of a {}"
LEAST_SIDE = 8
"""Pixels of the shorter side of what is looked at; smaller crops show nothing."""


class Namer:
    """CLIP with the names of some categories.

    Args:
        path, revision: of the model, see `ImageEncoder`.
        names: of the categories, as words.

    Raises:
        InputError: files are missing, damaged, or without a text tower.
    """

    def __init__(self, path: str, revision: str | None, names: Sequence[str], device: str = "cpu"):
        self.images = ImageEncoder(path, revision, device)
        try:
            tokenizer = CLIPTokenizer.from_pretrained(path, revision=revision)
            text = CLIPTextModelWithProjection.from_pretrained(
                path, revision=revision, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"{path}: its text tower cannot be loaded: {lines[0]}") from error
        prompts = [TEMPLATE.format(name) for name in names]
        ids = tokenizer(
            prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            vectors = torch.cat([text(part).text_embeds for part in ids.split(64)])
        self.names = torch.nn.functional.normalize(vectors, dim=1).to(device)

    def nearest(self, crops: Iterable[np.ndarray]) -> list[int]:
        """Place of the nearest name for each crop, uint8 (H, W, 3)."""
        pixels = np.stack([self.images.preprocess(crop) for crop in crops])
        return (self.images.embed(pixels) @ self.names.T).argmax(1).tolist()


def crop(image: np.ndarray, box: Sequence[float]) -> np.ndarray | None:
    """The part of an image inside a box [x, y, w, h] in pixels; None where it is too small to look at."""
    x, y, w, h = box
    left, top = max(int(x), 0), max(int(y), 0)
    part = image[top : int(np.ceil(y + h)), left : int(np.ceil(x + w))]
    return None if min(part.shape[:2]) < LEAST_SIDE else part
