"""The perceptive head and its loss (P.A. loss of DetDiffusion): features of the U-Net must show the objects.

The paper says that the head fuses several levels like a feature pyramid and adds 1.3% of parameters; the
rest is assumed: taps before each upsampler, one width, two convolutions on the sum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Targets:
    """What the head should find in a batch: the classes that each image shows, and where.

    Lists are padded to the image with the most classes.
    """

    classes: Tensor
    """int64 (images, P): places among the head's classes."""
    masks: Tensor
    """float32 (images, P, height, width) of 0 and 1, at the size of the latents."""
    valid: Tensor
    """bool (images, P): false where a list is padded."""


class PerceptiveHead(nn.Module):
    """A feature pyramid with one prediction at the size of the latents.

    Args:
        widths: channels of the levels, the largest level first.
        classes: how many there are.
        channels: width of the head, a multiple of 8.
    """

    def __init__(self, widths: Sequence[int], classes: int, channels: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(_block(channels) for _ in widths)
        self.fuse = nn.Sequential(_block(channels), _block(channels))
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, features: list[Tensor], classes: Tensor) -> Tensor:
        """Logits of some classes of each image.

        Args:
            features: (images, channels, height, width) each, the largest first.
            classes: int64 (images, P).

        Returns:
            float32 (images, P, height, width).
        """
        size, merged, total = features[0].shape[2:], None, 0
        levels = list(zip(self.lateral, self.smooth, features, strict=True))
        for lateral, smooth, level in reversed(levels):
            own = lateral(level)
            merged = own if merged is None else own + F.interpolate(merged, own.shape[2:], mode="nearest")
            total = total + F.interpolate(smooth(merged), size, mode="bilinear", align_corners=False)
        fused = self.fuse(total).float()
        # Of a thousand classes an image shows a handful: the others' logits are not computed.
        weight, bias = self.classify.weight.flatten(1)[classes], self.classify.bias[classes]
        with torch.autocast(fused.device.type, enabled=False):
            return torch.einsum("npc,nchw->nphw", weight.float(), fused) + bias.float()[..., None, None]


class _GroupNorm(nn.GroupNorm):
    """Group normalisation that holds for maps of any size, a single cell included.

    Where channels are few, a group is one channel. On a map of one cell that is one number, which would
    become zero whatever it was: there, groups are put together until they hold `LEAST` numbers.
    """

    LEAST = 4

    def forward(self, maps: Tensor) -> Tensor:
        """Of maps (images, channels, height, width), each image by itself."""
        groups, numbers = self.num_groups, maps[0].numel()
        while groups > 1 and numbers // groups < self.LEAST:
            groups //= 2  # a power of two, see `_block`
        return F.group_norm(maps, groups, self.weight, self.bias, self.eps)


def _block(channels: int) -> nn.Sequential:
    norm = _GroupNorm(math.gcd(32, channels), channels)
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), norm, nn.SiLU())


def mask_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Binary cross-entropy plus dice loss, (images,).

    Cross-entropy is the mean over cells, dice 1 - (2 sum(p g) + 1) / (sum p + sum g + 1); both are means
    over the classes that an image shows, and 0 where it shows none. Computed in float32.
    """
    logits, masks, valid = logits.float(), targets.masks.float(), targets.valid.float()
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((2, 3))
    found = logits.sigmoid()
    overlap, sizes = (found * masks).sum((2, 3)), found.sum((2, 3)) + masks.sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    return ((entropy + dice) * valid).sum(1) / valid.sum(1).clamp(min=1)


class PerceptionLoss:
    """weight * sqrt(share of signal left) * `mask_loss`, each image by its own time step.

    Args:
        head: what predicts.
        schedule: alpha bar by time step, see `diffusion.replay.noise_schedule`.
        weight: lambda of the paper.
    """

    def __init__(self, head: PerceptiveHead, schedule: Tensor, weight: float):
        self.head, self.schedule, self.weight = head, schedule, weight

    def __call__(self, t: Tensor, features: list[Tensor], targets: Targets) -> Tensor:
        """Loss of each image, float32 (images,).

        Args:
            t: int64 (images,).
            features: of the U-Net, see `PerceptiveHead`.
        """
        kept = self.schedule.to(features[0].device)[t.to(features[0].device)].sqrt()
        return self.weight * kept * mask_loss(self.head(features, targets.classes), targets)
