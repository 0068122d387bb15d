"""A frozen text-to-image model as mmdet backbone: what DiffusionEngine's adapter sits on (its section 3.2).

Loaded by name (`detectors.build_model`), and only by detectors that have it: others need no diffusion model,
and changes of that code do not train them again.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from gen4det.core.errors import InputError
from gen4det.data.model_settings import ModelSource
from gen4det.diffusion.frozen import FrozenFeatures, load_frozen
from gen4det.diffusion.kept_features import KeptFeatures


@MODELS.register_module()
class FrozenDiffusion(BaseModule):
    """Features of a Stable-Diffusion-like U-Net, one level for each of its resolutions, the largest first.

    It has no parameters and no state: the model is no part of state dictionaries, optimisers, averages, or of
    what several processes exchange. Images come as float RGB in [-1, 1] with sides in whole latent cells
    (`mean` and `std` 127.5, `bgr_to_rgb`, and `pad_size_divisor` of the `data_preprocessor`).

    While training, noise is drawn anew from torch's own random stream, which the training seeds. In
    evaluation every image gets the same noise, of `noise_seed`, so that what is found in it depends on no
    other image.

    Args:
        source: `path` and `revision` of the model; filled in from the detector's settings (`fit_backbone`).
        fingerprint: hash of its weights that the detector was trained with; filled in, too.
        precision: arithmetic of the U-Net.
        noise_seed: of evaluation.
        kept_draws: noises of each image under which a training computes its features once and keeps them on
            disk; 0: computed anew, under new noise, at each visit.

    Raises:
        InputError: no such model, or another one than the detector was trained with.
    """

    def __init__(
        self,
        source: dict | None = None,
        fingerprint: str | None = None,
        precision: str = "float32",
        noise_seed: int = 0,
        kept_draws: int = 0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if source is None:
            raise InputError("detector: a FrozenDiffusion backbone needs a model; name it in `diffusion`")
        self.features = load_frozen(ModelSource(**source), precision)
        if fingerprint not in (None, self.features.fingerprint):
            raise InputError(
                f"{source['path']}: another model ({self.features.fingerprint}) than the one this detector "
                f"was trained on ({fingerprint}); give it the same, or train the detector again"
            )
        self.noise_seed = noise_seed
        self.kept_draws = kept_draws
        self._kept: KeptFeatures | None = None
        self._given: list[Tensor] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch.

        Args:
            x: float (images, 3, height, width).

        Returns:
            float32 (images, channels, height, width) for each level.

        Raises:
            InputError: sides that are no whole latent cells.
        """
        if self._given is not None:
            return tuple(self._given)
        self.features.to(x.device)
        if self.training and self._kept is not None:
            return self._kept(x.float())
        shape = self.features.latent_shape(*x.shape[-2:])
        posterior, noise = (draw.to(x.device) for draw in self._noise(len(x), shape))
        return tuple(self.features(x.float(), posterior, noise))

    def keep_features(self, folder: Path) -> None:
        """From now on training keeps what it computes in a folder, if `kept_draws` says so."""
        if self.kept_draws:
            self._kept = KeptFeatures(self.features, folder, self.kept_draws)

    def _noise(self, images: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        if self.training:
            return torch.randn(images, *shape), torch.randn(images, *shape)
        stream = torch.Generator().manual_seed(self.noise_seed)
        draws = torch.randn(2, *shape, generator=stream)
        return tuple(draw.expand(images, -1, -1, -1) for draw in draws)

    @contextlib.contextmanager
    def given(self, features: Sequence[Tensor]) -> Iterator[None]:
        """Inside this block the detector sees these features, whatever images it is given.

        Args:
            features: as `forward` returns them, e.g. those of a generation's last step.
        """
        self._given = list(features)
        try:
            yield
        finally:
            self._given = None


def fit_backbone(model: dict, source: ModelSource) -> FrozenFeatures:
    """Fill in what a detector's config cannot know of its diffusion model: where it lies, and its widths.

    Args:
        model: config of a detector with a FrozenDiffusion backbone; changed in place.

    Raises:
        InputError: no such model, or the neck is not one that says `in_channels`.
    """
    backbone = model["backbone"]
    features = load_frozen(source, backbone.get("precision", "float32"))
    backbone.update(source=source.model_dump(mode="json"), fingerprint=features.fingerprint)
    neck = model.get("neck")
    first = neck[0] if isinstance(neck, list | tuple) else neck
    if not first or "in_channels" not in first:
        raise InputError(
            "detector: a FrozenDiffusion backbone is followed by a neck with in_channels, e.g. FPN"
        )
    first["in_channels"] = list(features.channels)
    return features
