"""Networks that turn images into features, for the Frechet distance."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from gen4det.core.errors import InputError
from gen4det.evaluation.fidelity_settings import FeatureSettings
from gen4det.evaluation.inception import SIDE, load_inception
from gen4det.evaluation.measures.frechet import Encoder


def load_encoder(settings: FeatureSettings, device: str = "cpu") -> tuple[Encoder, dict]:
    """What makes features of images, and facts for the record.

    Images are scaled to one size where they differ, since a batch has one: bilinear, without smoothing, as
    most implementations of FID do.

    Raises:
        InputError: weights are missing or of another network.
    """
    folder = Path(settings.model.path)
    if settings.kind == "inception":
        files = sorted(folder.glob("*.pth"))
        if len(files) != 1:
            raise InputError(
                f"{folder}: {len(files)} files *.pth; expected the weights of FID's Inception network"
            )
        return _encoder(load_inception(files[0]), SIDE, device), {
            "network": "inception 2015-12-05",
            "side": SIDE,
        }
    network = load_classifier(folder / "model.safetensors")
    return _encoder(network, None, device), {"network": "classifier", "side": None}


def load_classifier(file: Path) -> nn.Module:
    """The residual network of a weights file as a map from images to pooled features of its last but one
    stage.

    Raises:
        InputError: no such file, or of another network.
    """
    from gen4det.detection.detectors import MODELS

    try:
        state = {name: value.float() for name, value in load_file(file).items()}
        width = len(state["conv1.weight"])
        norm = dict(type="BN")
        network = MODELS.build(
            dict(type="ResNet", depth=18, base_channels=width, norm_cfg=norm, out_indices=(2,))
        )
        network.load_state_dict(state)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be loaded: {str(error).splitlines()[0]}") from error
    return _Pooled(network).requires_grad_(False).eval()


class _Pooled(nn.Module):
    """Feature maps to their means."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)[-1].mean((2, 3))


def _encoder(network: nn.Module, side: int | None, device: str) -> Callable[[list[np.ndarray]], np.ndarray]:
    network = network.to(device)

    @torch.inference_mode()
    def encode(images: list[np.ndarray]) -> np.ndarray:
        wanted = (side, side) if side else images[0].shape[:2]
        pixels = [_scaled(image, wanted, device) for image in images]
        return network(torch.cat(pixels)).cpu().numpy()

    return encode


def _scaled(image: np.ndarray, size: tuple[int, int], device: str) -> torch.Tensor:
    """float32 (1, 3, *size) in [-1, 1] of an image, uint8 (H, W, 3)."""
    pixels = (
        torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    )
    if image.shape[:2] == tuple(size):
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False)
