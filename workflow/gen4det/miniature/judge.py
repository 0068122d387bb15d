"""Judging the foundation models before anything is built on them.

The judge is a classifier that never saw a generated image. It calls the category of single-object
samples; the share of samples it calls by the prompted name is the models' fidelity.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from tqdm import tqdm

from gen4det.miniature.autoencoder import to_tensor
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.classifier import Classifier, all_category_ids, small_backbone, train_classifier
from gen4det.miniature.corpus import iterate_corpus
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.provenance import seed_for, write_json

SAMPLES, GRID, STEPS, GUIDANCE, JUDGE_STEPS = 16, 12, 15, 5.0, 400


def judge(settings: FoundationTraining, corpus: Path, diffusion: Path, output: Path, work: Path, device: str):
    """Write `judgement.json`, `samples.png` (a row per category) and `reconstructions.png` to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(
        diffusion, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    ).to(device)
    judgement = {"reconstruction": reconstruction_error(settings, pipeline.vae, output, device)}
    torch.manual_seed(settings.seed)
    classifier = Classifier(*small_backbone(), all_category_ids())
    accuracy = train_classifier(classifier, settings, corpus, work, JUDGE_STEPS, device)
    judgement["judge_accuracy_on_rendered_images"] = round(accuracy, 4)
    share, calls, rows = {}, {}, []
    for index, category in enumerate(tqdm(CATEGORIES, desc="judge samples", unit="category")):
        images = sample(
            pipeline, f"a photo of a single {category.name}, {category.definition}", index, settings
        )
        with torch.no_grad():
            called = classifier(to_tensor(images, device)).argmax(1).cpu().numpy()
        share[category.name] = round(float((called == index).mean()), 4)
        others = [CATEGORIES[i].name for i in called if i != index]
        calls[category.name] = {name: others.count(name) for name in sorted(set(others))}
        rows.append(np.concatenate(images[:GRID], 1))
    judgement["fidelity"] = {"mean": round(float(np.mean(list(share.values()))), 4), "per_category": share}
    judgement["called_instead"] = calls
    judgement["protocol"] = {
        "samples_per_category": SAMPLES, "steps": STEPS, "guidance": GUIDANCE, "scheduler": "DPM-Solver++",
        "prompt": "a photo of a single {name}, {definition}",
    }  # fmt: skip
    half = len(rows) // 2
    grid = np.concatenate([np.concatenate(rows[:half], 0), np.concatenate(rows[half:], 0)], 1)
    Image.fromarray(grid).save(output / "samples.png")
    write_json(output / "judgement.json", judgement, indent=1)


def sample(
    pipeline: StableDiffusionPipeline, prompt: str, stream: int, settings: FoundationTraining
) -> np.ndarray:
    """SAMPLES images uint8 (N, S, S, 3) with DPM-Solver++; the noise is drawn on the CPU."""
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    generators = [
        torch.Generator("cpu").manual_seed(seed_for(settings.seed, "judge", stream, i))
        for i in range(SAMPLES)
    ]
    side = settings.image_size
    images = pipeline(
        [prompt] * SAMPLES, height=side, width=side, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        generator=generators, output_type="np",
    ).images  # fmt: skip
    return (images * 255).round().astype(np.uint8)


@torch.no_grad()
def reconstruction_error(
    settings: FoundationTraining, vae: AutoencoderKL, output: Path, device: str, count: int = 256
) -> dict[str, float]:
    """Mean absolute error on [-1, 1] and PSNR in dB over held-out images; draws originals above decodings."""
    items = iterate_corpus(settings, "reconstruction-heldout", count)
    images = np.stack([item.scene.image for item in items])
    decoded = []
    for part in np.array_split(images, 8):
        decoded.append(vae.decode(vae.encode(to_tensor(part, device)).latent_dist.mode()).sample.cpu())
    decoded, target = torch.cat(decoded).clamp(-1, 1), to_tensor(images, "cpu")
    mse = (decoded - target).square().mean((1, 2, 3))
    shown = ((decoded[:16].permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
    pair = np.concatenate([np.concatenate(images[:16], 1), np.concatenate(shown, 1)], 0)
    Image.fromarray(pair).save(output / "reconstructions.png")
    return {
        "mean_absolute_error": round((decoded - target).abs().mean().item(), 4),
        "psnr_db": round((10 * torch.log10(4 / mse)).mean().item(), 2),
    }
