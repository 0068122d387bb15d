"""Features of training images, computed at the first visit and kept on disk for the further ones.

A frozen model finds in an image what it found there before. What is kept is found again by the image's
pixels, so that a mirrored or otherwise changed image is an image of its own: it saves where few variants of
an image come, often, and nothing where each visit shows another part or size.
"""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write
from gen4det.diffusion.frozen import FrozenFeatures


class KeptFeatures:
    """Features of single images under a number of noises each, in float16, a file for each image and noise.

    The noise follows from the pixels, and images pass the model one by one: what a file holds depends neither
    on when it was written nor on what else was in the batch. So a training that goes on after a stop sees the
    same features, and several processes may share the folder.

    Args:
        features: of the frozen model.
        folder: of the files; made where it is missing. Whoever makes it removes it.
        draws: noises of each image, at least 1.
    """

    def __init__(self, features: FrozenFeatures, folder: Path, draws: int):
        self.features, self.folder, self.draws = features, folder, draws
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch, each image under one of its noises, chosen with torch's own random stream.

        Args:
            pixels: float32 (images, 3, height, width), as `FrozenFeatures` takes them.

        Returns:
            float32 (images, channels, height, width) for each level.

        Raises:
            InputError: features beyond what float16 holds.
        """
        numbers = torch.randint(self.draws, (len(pixels),)).tolist()
        found = [self._of_one(image, number) for image, number in zip(pixels, numbers, strict=True)]
        return tuple(torch.stack(level).to(pixels.device).float() for level in zip(*found, strict=True))

    def _of_one(self, image: Tensor, number: int) -> list[Tensor]:
        """float16 (channels, height, width) for each level."""
        plain = image.cpu().contiguous()
        digest = hashlib.blake2b(plain.numpy(), digest_size=16)
        digest.update(str(tuple(plain.shape)).encode())
        name = digest.hexdigest()
        file = self.folder / f"{name}-{number}.safetensors"
        if not file.exists():
            levels = self._compute(image, int(name[:15], 16) + number)
            with atomic_write(file) as temporary:
                save_file({str(place): level for place, level in enumerate(levels)}, temporary)
        kept = load_file(file)
        return [kept[str(place)] for place in range(len(kept))]

    def _compute(self, image: Tensor, seed: int) -> list[Tensor]:
        shape = self.features.latent_shape(*image.shape[-2:])
        stream = torch.Generator().manual_seed(seed)
        posterior, noise = (draw[None].to(image.device) for draw in torch.randn(2, *shape, generator=stream))
        levels = [level[0].half().cpu() for level in self.features(image[None], posterior, noise)]
        if not all(torch.isfinite(level).all() for level in levels):
            raise InputError("kept_draws: features beyond 65504, which float16 cannot keep; set it to 0")
        return levels
