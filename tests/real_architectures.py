"""Configurations of the public models that the full scale runs on, for tests on torch's meta device.

Written from the published descriptions; the numbers of parameters are the published ones and check them.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

STABLE_DIFFUSION_1 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
STABLE_DIFFUSION_2 = STABLE_DIFFUSION_1 | {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
GLIGEN_INPAINTING = STABLE_DIFFUSION_1 | {"in_channels": 9, "attention_type": "gated"}

UNETS = {
    "stable-diffusion-1-4": STABLE_DIFFUSION_1,
    "stable-diffusion-1-5": STABLE_DIFFUSION_1,
    "stable-diffusion-2-0-base": STABLE_DIFFUSION_2,
    "gligen-1-4-inpainting": GLIGEN_INPAINTING,
}
"""By the names in resources/data_registry.yaml."""

AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
CLIP_TEXT_LARGE = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
"""The text encoder of Stable Diffusion 1."""


def unet(name: str) -> UNet2DConditionModel:
    """A U-Net without numbers: shapes and operations only."""
    with torch.device("meta"):
        return UNet2DConditionModel(**UNETS[name]).eval()


def autoencoder() -> AutoencoderKL:
    """Stable Diffusion's autoencoder, without numbers."""
    with torch.device("meta"):
        return AutoencoderKL(**AUTOENCODER).eval()


def clip_text_encoder(more_words: int = 0) -> CLIPTextModel:
    """CLIP ViT-L/14's text encoder, without numbers; with room for more words."""
    shape = CLIP_TEXT_LARGE | {"vocab_size": CLIP_TEXT_LARGE["vocab_size"] + more_words}
    with torch.device("meta"):
        return CLIPTextModel(CLIPTextConfig(**shape)).eval()


def clip_image_tower() -> CLIPVisionModelWithProjection:
    """CLIP ViT-L/14's image encoder, without numbers."""
    with torch.device("meta"):
        return CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_LARGE)).eval()


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
