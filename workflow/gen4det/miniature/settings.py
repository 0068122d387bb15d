"""Settings of the miniature world and of the training of its foundation models."""

from typing import Literal

from pydantic import Field

from gen4det.settings import Settings


class MiniatureDataset(Settings):
    """A rendered detection data set."""

    source: Literal["miniature"] = "miniature"
    """Where the data come from."""
    edition: Literal["lvis", "coco"] = "lvis"
    """lvis: long-tailed and federated; coco: exhaustive, with base and novel categories and captions."""
    train_images: int = Field(600, ge=24)
    """Training images."""
    val_images: int = Field(300, ge=1)
    """Validation images."""
    image_size: int = Field(128, ge=64)
    """Side of the square images in pixels."""
    object_size: tuple[float, float] = (18, 58)
    """Smallest and largest extent of an object in pixels."""
    style: Literal["photo", "drawing"] = "photo"
    """Drawing style of the images; "drawing" serves cross-domain studies."""
    seed: int = 2026
    """Seed of the world; splits and the models' corpus take disjoint streams of it."""


class FoundationTraining(Settings):
    """How the miniature's foundation models are trained; the CPU setting unless noted."""

    seed: int = 2026
    """Seed of the world and of the initial weights."""
    image_size: int = 64
    """Side of the corpus images in pixels (128 on a GPU)."""
    corpus_images: int = 28_000
    """Captioned images rendered for training."""
    autoencoder_channels: tuple[int, ...] = (16, 32, 64)
    """Width per level; the autoencoder shrinks by 2 ** (levels - 1)."""
    autoencoder_steps: int = 1_900
    """Optimiser steps of the autoencoder at batch 16."""
    unet_channels: tuple[int, ...] = (48, 96, 112)
    """Width per level of both U-Nets."""
    text_width: int = 96
    """Width of the text encoder and of the cross-attention."""
    diffusion_steps: int = 4_200
    """Optimiser steps of the text-conditional U-Net at batch 16."""
    inpainting_steps: int = 800
    """Optimiser steps of the grounded inpainting U-Net at batch 8."""
    clip_steps: int = 1_200
    """Optimiser steps of the CLIP image tower at batch 64."""
    backbone_steps: int = 1_500
    """Optimiser steps of the detector's backbone at batch 64."""
