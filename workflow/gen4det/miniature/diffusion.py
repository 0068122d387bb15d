"""The text-conditional U-Net and the text encoder of the miniature's Stable Diffusion.

The text encoder learns along with the U-Net, on the same captions, as the first latent diffusion models
did, or stays as it is where training goes on from given weights; the CLIP image tower is fitted to it
afterwards (`clip.py`).
"""

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

from gen4det.core.errors import InputError
from gen4det.miniature.autoencoder import to_tensor
from gen4det.miniature.corpus import category_shares, corpus_item
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.tokenizer import build_tokenizer

BATCH = 32
CONSTANT_SHARE = 2 / 3  # of the steps before the learning rate falls
EMA_DECAY = 0.999
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


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids (B, 77), padded as Stable Diffusion pads."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def denoising_loss(predicted, noise, timesteps, scheduler) -> torch.Tensor:
    """Mean squared error of the noise, weighted by min(SNR, MIN_SNR) / SNR."""
    cumulative = scheduler.alphas_cumprod.to(noise.device)[timesteps]
    snr = cumulative / (1 - cumulative)
    weight = snr.clamp(max=MIN_SNR) / snr
    return (weight * (predicted - noise).square().mean((1, 2, 3))).mean()


def make(job: FoundationJob) -> dict:
    """Train the U-Net, and the text encoder if it learns; save a StableDiffusionPipeline folder.

    Every step shows pictures that were rendered for it and are never seen again.

    Returns:
        Facts for the record.
    """
    settings, device = job.settings, job.device
    shares = category_shares(settings.category_weights)
    vae = AutoencoderKL.from_pretrained(job.inputs["autoencoder"], torch_dtype=torch.float32)
    vae.to(device).eval()
    torch.manual_seed(settings.seed)
    unet, text_encoder, tokenizer = start(settings, job.work, settings.image_size // _factor(vae))
    unet.to(device).train()
    text_encoder.to(device).requires_grad_(settings.text_encoder_learns)
    scheduler = DDPMScheduler(**NOISE)

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        numbers = range(step * BATCH, (step + 1) * BATCH)
        items = [corpus_item(settings, number, "diffusion", shares) for number in numbers]
        images = np.stack([item.scene.image for item in items])
        if rng.random() < 0.5:
            images = images[:, :, ::-1]
        dropped = rng.random(BATCH) < NULL_SHARE
        captions = ["" if drop else item.caption for item, drop in zip(items, dropped, strict=True)]
        ids, inverse = torch.unique(tokenize(tokenizer, captions), dim=0, return_inverse=True)
        with torch.no_grad():
            clean = vae.encode(to_tensor(images, device)).latent_dist.mode()
        with torch.set_grad_enabled(settings.text_encoder_learns):
            context = text_encoder(ids.to(device)).last_hidden_state[inverse.to(device)]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (BATCH,)).to(device)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        predicted = unet(noisy, timesteps, encoder_hidden_states=context).sample
        return denoising_loss(predicted, noise, timesteps, scheduler)

    facts = job.train(
        [unet, text_encoder] if settings.text_encoder_learns else [unet],
        step_loss,
        steps=settings.diffusion_steps,
        learning_rate=settings.diffusion_rate,
        constant_share=CONSTANT_SHARE,
        ema_decay=EMA_DECAY,
    )
    with job.result() as folder:
        save_pipeline(vae, unet, text_encoder, tokenizer, folder)
    return facts


def start(
    settings: FoundationTraining, work: Path, latent_size: int
) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """U-Net, text encoder and tokenizer as the training begins: new, or those of `diffusion_start`.

    Args:
        work: where a new tokenizer is written.
        latent_size: side of the latents.

    Raises:
        InputError: `diffusion_start` is no pipeline folder, or one of another size.
    """
    path = settings.diffusion_start
    if path is None:
        build_tokenizer(work / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        return new_unet(settings, latent_size), new_text_encoder(settings, tokenizer), tokenizer
    if not (Path(path) / "unet" / "config.json").is_file():
        raise InputError(f"diffusion_start: {path}: not a pipeline folder: it has no unet/config.json")
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet", torch_dtype=torch.float32)
    found = (unet.config.sample_size, tuple(unet.config.block_out_channels), unet.config.cross_attention_dim)
    wanted = (latent_size, tuple(settings.unet_channels), settings.text_width)
    if found != wanted:
        raise InputError(
            f"diffusion_start: {path}: latents, channels, text width are {found}, the settings say {wanted}"
        )
    text_encoder = CLIPTextModel.from_pretrained(path, subfolder="text_encoder", torch_dtype=torch.float32)
    return unet, text_encoder, CLIPTokenizer.from_pretrained(path, subfolder="tokenizer")


def _factor(vae: AutoencoderKL) -> int:
    """Pixels per side of a latent."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def save_pipeline(vae, unet, text_encoder, tokenizer, output: Path) -> None:
    """Save in the layout of Stable Diffusion 1.x, with its PNDM scheduler."""
    scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(), unet=unet.half(), text_encoder=text_encoder.half(), tokenizer=tokenizer,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(output, safe_serialization=True)
