"""The text-conditional U-Net and the text encoder of the miniature's Stable Diffusion.

The text encoder learns along with the U-Net, on the same captions, as the first latent diffusion models
did; the CLIP image tower is fitted to it afterwards (`clip.py`).
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gen4det.core.provenance import atomic_write
from gen4det.miniature.autoencoder import encode_corpus
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.tokenizer import build_tokenizer
from gen4det.miniature.training import train

BATCH = 16
NULL_SHARE = 0.1  # captions replaced by the empty string, for classifier-free guidance
MIN_SNR = 5.0  # loss weight min(SNR, 5) / SNR (Hang et al. 2023, arXiv 2303.09556)
NOISE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def new_unet(settings: FoundationTraining, latent_size: int, **changes) -> UNet2DConditionModel:
    """An untrained U-Net: cross-attention at the first two of three levels and in the middle."""
    return UNet2DConditionModel(**{
        "sample_size": latent_size,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": settings.unet_channels,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": settings.text_width,
        "attention_head_dim": 2,  # number of heads; diffusers keeps the old name
        "norm_num_groups": 16,
        **changes,
    })  # fmt: skip


def new_text_encoder(settings: FoundationTraining, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained two-layer CLIP text encoder with Stable Diffusion's 77 positions."""
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=2 * settings.text_width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=settings.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def load_latents(vae: AutoencoderKL, corpus: Path, cache: Path, device: str) -> torch.Tensor:
    """Latents of the corpus (`encode_corpus`), computed once."""
    if not cache.exists():
        latents = encode_corpus(vae, np.load(corpus / "images.npy", mmap_mode="r"), device)
        with atomic_write(cache) as temporary:
            torch.save(latents, temporary)
    return torch.load(cache, weights_only=True)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids (B, 77), padded as Stable Diffusion pads."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def denoising_loss(predicted, noise, timesteps, scheduler) -> torch.Tensor:
    """Mean squared error of the noise, weighted by min(SNR, MIN_SNR) / SNR."""
    cumulative = scheduler.alphas_cumprod.to(noise.device)[timesteps]
    snr = cumulative / (1 - cumulative)
    weight = snr.clamp(max=MIN_SNR) / snr
    return (weight * (predicted - noise).square().mean((1, 2, 3))).mean()


def train_diffusion(
    settings: FoundationTraining, corpus: Path, autoencoder: Path, output: Path, work: Path, device: str
) -> None:
    """Train U-Net and text encoder; save a StableDiffusionPipeline folder with half-precision weights."""
    vae = AutoencoderKL.from_pretrained(autoencoder, torch_dtype=torch.float32).to(device).eval()
    latents = load_latents(vae, corpus, work / "latents.pt", device)
    build_tokenizer(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    captions = json.loads((corpus / "captions.json").read_text())
    token_ids = tokenize(tokenizer, [*captions, ""])

    torch.manual_seed(settings.seed)
    unet = new_unet(settings, latents.shape[-1]).to(device)
    text_encoder = new_text_encoder(settings, tokenizer).to(device)
    scheduler = DDPMScheduler(**NOISE)

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        index = rng.integers(0, len(captions), BATCH)
        clean = latents[torch.from_numpy(index)].to(device).float()
        captioned = np.where(rng.random(BATCH) < NULL_SHARE, len(captions), index)
        ids, inverse = torch.unique(token_ids[torch.from_numpy(captioned)], dim=0, return_inverse=True)
        context = text_encoder(ids.to(device)).last_hidden_state[inverse.to(device)]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (BATCH,)).to(device)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        predicted = unet(noisy, timesteps, encoder_hidden_states=context).sample
        return denoising_loss(predicted, noise, timesteps, scheduler)

    train(
        [unet, text_encoder], step_loss, steps=settings.diffusion_steps,
        learning_rate=1.5e-3, work=work,
        fingerprint=settings.model_dump(
            include={"seed", "image_size", "unet_channels", "text_width", "diffusion_steps"}
        ),
    )  # fmt: skip
    save_pipeline(vae, unet, text_encoder, tokenizer, output)


def save_pipeline(vae, unet, text_encoder, tokenizer, output: Path) -> None:
    """Save in the layout of Stable Diffusion 1.x, with its PNDM scheduler."""
    scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(), unet=unet.half(), text_encoder=text_encoder.half(), tokenizer=tokenizer,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(output, safe_serialization=True)
