"""What a frozen autoencoder makes of training images: the same every time, so that small sets are kept."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

Key = tuple[int, bool]
"""Number of a layout, and whether its image is mirrored."""
KEPT_BYTES = 2**28
"""More than that is not kept: 64 px of the miniature need 16 KiB an image, 256 px of Stable Diffusion 64."""


class Posteriors:
    """Means and deviations of a frozen autoencoder's latents.

    Where those of all images fit into memory, mirrored and not, each is computed once. Then every image is
    encoded by itself, so that its numbers do not depend on which others were already known: a training that
    was stopped and resumed, which has forgotten them, gives the same bytes.

    Args:
        vae: the autoencoder.
        images: how many there are at most, without their mirror images.
        cells: (height, width) of the latents.
        limit: bytes to keep at most.
    """

    def __init__(self, vae: AutoencoderKL, images: int, cells: tuple[int, int], *, limit: int = KEPT_BYTES):
        self.vae = vae
        one = torch.float32.itemsize * vae.config.latent_channels * cells[0] * cells[1]
        self.keeps = images * 2 * 2 * one <= limit
        """Whether posteriors are kept."""
        self._kept: dict[Key, tuple[Tensor, Tensor]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether an image need not be read again."""
        return key in self._kept

    def __call__(self, keys: Sequence[Key], pixels: Sequence[np.ndarray | None]) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, float32 (images, channels, *cells) each, where the autoencoder is.

        Args:
            keys: which images.
            pixels: uint8 (height, width, 3) of each; None of one that is contained.
        """
        if not self.keeps:
            return self._encode(np.stack(pixels))
        for key, image in zip(keys, pixels, strict=True):
            if key not in self._kept:
                self._kept[key] = self._encode(np.stack([image]))
        means, deviations = zip(*(self._kept[key] for key in keys), strict=True)
        return torch.cat(means), torch.cat(deviations)

    @torch.no_grad()
    def _encode(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        device = self.vae.device
        values = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(device.type, enabled=False):
            posterior = self.vae.encode(values).latent_dist
        return posterior.mean, posterior.std
