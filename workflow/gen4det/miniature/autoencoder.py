"""The KL autoencoder of the miniature's Stable Diffusion."""

import numpy as np
import torch
from diffusers import AutoencoderKL

from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining

BATCH = 16


def new_autoencoder(settings: FoundationTraining) -> AutoencoderKL:
    """An untrained AutoencoderKL with four latent channels."""
    channels = settings.autoencoder_channels
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=settings.image_size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def to_tensor(images: np.ndarray, device: str) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return (tensor.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def make(job: FoundationJob) -> dict:
    """Train on the corpus images and save in diffusers' format; facts for the record."""
    settings, device = job.settings, job.device
    images = np.load(job.inputs["corpus"] / "images.npy", mmap_mode="r")
    torch.manual_seed(settings.seed)
    vae = new_autoencoder(settings).to(device, memory_format=torch.channels_last)

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        batch = images[np.sort(rng.choice(len(images), BATCH, replace=False))]
        if rng.random() < 0.5:
            batch = batch[:, :, ::-1]
        target = to_tensor(batch, device)
        posterior = vae.encode(target).latent_dist
        error = vae.decode(posterior.sample()).sample - target
        kl = posterior.kl().mean() / target[0].numel()
        return 2 * error.square().mean() + 0.5 * error.abs().mean() + 1e-6 * kl

    facts = job.train([vae], step_loss, steps=settings.autoencoder_steps, learning_rate=2e-3, ema_decay=0.99)
    normalise_latents(vae, images, device)
    with job.result() as folder:
        vae.half().save_pretrained(folder, safe_serialization=True)
    return facts


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, images: np.ndarray, device: str, count: int = 2048) -> None:
    """Give every latent channel zero mean and unit variance without changing a decoded pixel.

    The affine map is folded into the 1 x 1 convolutions around the latent space, so the model stays a
    plain AutoencoderKL with a scaling factor of one.
    """
    channels = vae.config.latent_channels
    pick = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    means = torch.cat([
        vae.encode(to_tensor(images[part], device)).latent_dist.mean for part in np.array_split(pick, 32)
    ])  # fmt: skip
    centre, scale = means.mean((0, 2, 3)), means.std((0, 2, 3))
    to_latent, from_latent = vae.quant_conv, vae.post_quant_conv
    to_latent.bias[:channels] -= centre
    to_latent.weight[:channels] /= scale[:, None, None, None]
    to_latent.bias[:channels] /= scale
    to_latent.bias[channels:] -= 2 * scale.log()
    from_latent.bias += from_latent.weight[:, :, 0, 0] @ centre
    from_latent.weight *= scale[None, :, None, None]
