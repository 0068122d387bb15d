"""Cross-attention maps of chosen tokens, summed up while the U-Net runs.

Keeping every softmax of a generation costs gigabytes, of which one column per resolution is wanted. Here each
layer runs its fused attention as usual; beside it, for the images that are recorded, the softmax of the
wanted tokens alone is formed and added to one running sum per resolution. Memory does not depend on the
number of steps, layers, heads, or tokens of the prompt.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from gen4det.core.errors import InputError
from gen4det.diffusion.unet_levels import layer_level


class TokenMaps:
    """Running attention sums of a batch of images, one set of tokens for each.

    Args:
        tokens: for each image, positions in its prompt (0 is the start token).
        reduce: what several tokens of an image become: their mean, or the maximum of their final maps.
        latent_size: (height, width) of the U-Net's input in latent cells.
        factors: down-sampling factors to sum at; see `CrossAttentionRecorder.factors`.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        reduce: Literal["mean", "max"],
        latent_size: tuple[int, int],
        factors: Sequence[int],
        device: str | torch.device = "cpu",
    ):
        self.tokens = [tuple(positions) for positions in tokens]
        self.reduce = reduce
        self.sizes = {f: (math.ceil(latent_size[0] / f), math.ceil(latent_size[1] / f)) for f in factors}
        self.columns = 1 if reduce == "mean" else max(map(len, self.tokens))
        self.sums = {
            f: torch.zeros(len(tokens), h * w, self.columns, device=device)
            for f, (h, w) in self.sizes.items()
        }
        self.count = 0  # softmaxes added so far: steps x layers x heads
        self._marks: torch.Tensor | None = None

    @torch.no_grad()
    def add(self, factor: int, query: torch.Tensor, key: torch.Tensor) -> None:
        """Add one layer's attention, summed over its heads.

        Attention to a token is what attention returns if that token's value is one and all others' are zero.
        So the fused kernel gives the softmax of the wanted tokens, normalised over the whole prompt, without
        ever holding those of the others.

        Args:
            query: (images, heads, positions, channels); key: (images, heads, prompt tokens, channels).
        """
        _, heads, _, channels = query.shape
        if self._marks is None:
            self._marks = self._mark_tokens(key.shape[2], key.device)
        # Fused kernels want values as wide as keys.
        values = F.pad(self._marks, (0, max(channels - self.columns, 0))).expand(-1, heads, -1, -1)
        attention = F.scaled_dot_product_attention(query.float(), key.float(), values)
        self.sums[factor] += attention[..., : self.columns].sum(1)
        self.count += heads

    def _mark_tokens(self, prompt_tokens: int, device: torch.device) -> torch.Tensor:
        """Values (images, 1, prompt tokens, columns): the tokens' mean in one column, or each in its own."""
        marks = torch.zeros(len(self.tokens), 1, prompt_tokens, self.columns)
        for image, positions in enumerate(self.tokens):
            for column, position in enumerate(positions):
                if self.reduce == "mean":
                    marks[image, 0, position, 0] += 1 / len(positions)
                else:
                    marks[image, 0, position, column] = 1
        return marks.to(device)

    def maps(self) -> list[dict[int, np.ndarray]]:
        """The maps of each image, by factor, as float32 (height, width).

        A map is the sum over all softmaxes of its factor, divided by the number of softmaxes of all factors.
        So the plain sum of the maps, resized to one size, is the average attention over steps, layers and
        heads together, in [0, 1]; and the maps keep the right proportions where factors differ in layers.
        """
        result: list[dict[int, np.ndarray]] = [{} for _ in range(len(self.tokens))]
        for factor, sums in self.sums.items():
            shares = (sums / max(self.count, 1)).amax(-1).cpu().numpy()
            for image, share in zip(result, shares, strict=True):
                image[factor] = share.reshape(self.sizes[factor])
        return result

    @property
    def nbytes(self) -> int:
        """Memory of the running sums."""
        return sum(sums.nbytes for sums in self.sums.values())


class CrossAttentionRecorder:
    """Lets a U-Net add its cross-attention to `TokenMaps`. Made once for a U-Net; idle until `into` is used.

    Args:
        factors: read the layers of the down and up blocks that see the latent image this much smaller
            (powers of two). Factors without cross-attention are left out of `self.factors`.
        mid_block: read the middle block, too.

    Raises:
        InputError: no layer is left.
    """

    def __init__(self, unet: UNet2DConditionModel, factors: Sequence[int], mid_block: bool = False):
        self.target: TokenMaps | None = None
        self.rows = slice(None)
        self.layers: dict[int, int] = {}
        blocks = len(unet.down_blocks)
        processors = dict(unet.attn_processors)
        for name in processors:
            layer = name.removesuffix(".processor")
            factor = 2 ** layer_level(layer, blocks)
            wanted = mid_block if layer.startswith("mid_block") else factor in factors
            if wanted and layer.endswith(".attn2"):
                _require_plain(unet.get_submodule(layer), layer)
                processors[name] = _RecordingProcessor(self, factor)
                self.layers[factor] = self.layers.get(factor, 0) + 1
        if not self.layers:
            raise InputError(f"the U-Net has no cross-attention at the resolutions 1/{list(factors)}")
        unet.set_attn_processor(processors)

    @property
    def factors(self) -> tuple[int, ...]:
        """Down-sampling factors that are read."""
        return tuple(sorted(self.layers))

    @contextlib.contextmanager
    def into(self, target: TokenMaps | None, rows: slice = slice(None)) -> Iterator[None]:
        """Record U-Net evaluations made inside this block.

        Args:
            target: None records nothing.
            rows: the rows of the U-Net's batch that belong to the target's images.
        """
        self.target, self.rows = target, rows
        try:
            yield
        finally:
            self.target = None


def _require_plain(attention: Attention, name: str) -> None:
    unusual = (attention.norm_q, attention.norm_k, attention.group_norm, attention.spatial_norm)
    if any(part is not None for part in unusual) or attention.norm_cross or attention.residual_connection:
        raise InputError(f"U-Net layer {name}: this form of cross-attention cannot be recorded")


class _RecordingProcessor:
    """Fused cross-attention of a plain U-Net layer, which also serves its recorder."""

    def __init__(self, recorder: CrossAttentionRecorder, factor: int):
        self.recorder = recorder
        self.factor = factor

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if attention_mask is not None:
            raise ValueError("masked prompts cannot be recorded")

        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = split(attn.to_q(hidden_states))
        key = split(attn.to_k(encoder_hidden_states))
        value = split(attn.to_v(encoder_hidden_states))
        recorder = self.recorder
        if recorder.target is not None:
            recorder.target.add(self.factor, query[recorder.rows], key[recorder.rows])
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        output = attn.to_out[1](attn.to_out[0](mixed))
        return output / attn.rescale_output_factor
