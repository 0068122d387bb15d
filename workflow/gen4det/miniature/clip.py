"""The miniature's CLIP: an image tower fitted to the text tower that the U-Net was trained with.

Radford et al. 2021 train both towers; here the text tower is locked and only its projection learns
(Zhai et al. 2022, "LiT", lock the image tower instead).

CLIP knows blur and noise, because the captions of the web mention them. Ours mention names, so that the
embedding would tell nothing of a picture's quality. The image tower therefore gets a second lesson, from
pictures as rendered and spoilt, in which the embeddings of the corpus must stay what they were.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from gen4det.core.progress import progress
from gen4det.core.provenance import atomic_write
from gen4det.miniature.aesthetic import BEST, draw_pair
from gen4det.miniature.autoencoder import to_tensor
from gen4det.miniature.diffusion import tokenize
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining

BATCH = 64
PAIRS, KNOWN = 24, 32  # pictures of a step of the second lesson
KEEP = 20.0  # weight of what must stay, against an error of scores from 1 to 10
SPREAD, MIDDLE = 10.0, 7.5  # of the probe that measures quality: unit vectors are small, scores end at 10


def new_clip(settings: FoundationTraining, text_encoder: CLIPTextModel) -> CLIPModel:
    """A CLIPModel with the given text encoder and an untrained vision transformer, patch 8."""
    width = settings.text_width
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4, num_attention_heads=4,
        image_size=settings.image_size, patch_size=settings.image_size // 8, projection_dim=width,
    )  # fmt: skip
    config = CLIPConfig(
        text_config=text_encoder.config.to_dict(), vision_config=vision.to_dict(), projection_dim=width
    )
    model = CLIPModel(config)
    own, given = model.text_model.state_dict(), text_encoder.state_dict()
    given = {name.removeprefix("text_model."): value for name, value in given.items()}
    model.text_model.load_state_dict({name: given[name] for name in own})
    return model


def make(job: FoundationJob) -> dict:
    """Train on the corpus; save model, tokenizer and image preprocessing. Facts for the record."""
    settings, device = job.settings, job.device
    corpus, diffusion = job.inputs["corpus"], job.inputs["diffusion"]
    text_encoder = CLIPTextModel.from_pretrained(diffusion / "text_encoder", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(diffusion / "tokenizer")
    images = np.load(corpus / "images.npy", mmap_mode="r")
    captions = json.loads((corpus / "captions.json").read_text())
    token_ids = tokenize(tokenizer, captions)
    torch.manual_seed(settings.seed)
    model = new_clip(settings, text_encoder).to(device)
    model.text_model.requires_grad_(False)

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        pick = np.sort(rng.choice(len(images), BATCH, replace=False))
        pixels = to_tensor(images[pick], device)
        if rng.random() < 0.5:
            pixels = pixels.flip(3)
        ids, group = torch.unique(token_ids[torch.from_numpy(pick)], dim=0, return_inverse=True)
        image = _unit(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))
        text = _unit(model.text_projection(model.text_model(input_ids=ids.to(device)).pooler_output))
        group = group.to(device)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        # Equal captions are one class, so that no pair of a picture and its own words counts as wrong.
        own = torch.nn.functional.one_hot(group, len(ids)).float()
        to_text = torch.nn.functional.cross_entropy(logits, group)
        to_image = -(logits.T.log_softmax(1) * own.T).sum(1) / own.sum(0)
        return (to_text + to_image.mean()) / 2

    facts = job.train(
        [model],
        step_loss,
        steps=settings.clip_steps,
        learning_rate=1e-3,
        ema_decay=0.99,
        weight_decay=1e-2,
    )
    facts["quality"] = teach_quality(job, model, images[: settings.clip_quality_pairs])
    size = settings.image_size
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": size},
        "resample": 3, "do_center_crop": True, "crop_size": {"height": size, "width": size},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True,
    }  # fmt: skip
    with job.result() as folder:
        model.half().save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")
    return facts


def teach_quality(job: FoundationJob, model: CLIPModel, known: np.ndarray) -> dict:
    """Fit the image tower, so that a linear map of its embedding tells the quality of a picture.

    Args:
        known: pictures, uint8 (N, S, S, 3), whose embeddings must stay what they are.

    Returns:
        Facts of this training for the record.
    """
    settings, device = job.settings, job.device
    pairs = _pairs(settings, job.work / "pairs.npz")

    def embed(images: np.ndarray) -> torch.Tensor:
        pixels = to_tensor(images, device)
        return _unit(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output))

    with torch.no_grad():
        before = torch.cat([embed(part) for part in np.array_split(known, 1 + len(known) // BATCH)])
    probe = torch.nn.Linear(before.shape[1], 1).to(device)
    quality = torch.from_numpy(pairs["quality"]).to(device)
    model.requires_grad_(False)
    model.vision_model.requires_grad_(True)
    model.visual_projection.requires_grad_(True)

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        pick = rng.choice(len(quality), min(PAIRS, len(quality)), replace=False)
        kept = rng.choice(len(known), min(KNOWN, len(known)), replace=False)
        shown = np.concatenate([pairs["clean"][pick], pairs["spoilt"][pick]])
        if rng.random() < 0.5:
            shown = shown[:, :, ::-1]
        told, same = embed(np.concatenate([shown, known[kept]])).split([len(shown), len(kept)])
        wanted = torch.cat([torch.full((len(pick),), BEST, device=device), quality[pick]])
        error = (probe(SPREAD * told)[:, 0] + MIDDLE - wanted).square().mean()
        drift = 1 - (same * before[kept]).sum(1).mean()
        return error + KEEP * drift

    return job.train(
        [model, probe],
        step_loss,
        name="losses_quality",
        steps=settings.clip_quality_steps,
        learning_rate=1e-3,
        ema_decay=0.99,
        warmup=40,
        weight_decay=1e-2,
    )


def _pairs(settings: FoundationTraining, cache: Path) -> dict[str, np.ndarray]:
    """Pictures "clean" and "spoilt", uint8 (N, S, S, 3), and "quality", float32 (N,), of the spoilt ones."""
    if not cache.exists():
        size = (settings.image_size, settings.image_size)

        def scaled(image: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

        clean, spoilt, quality = [], [], []
        with progress(None, "render pairs", "pair", total=settings.clip_quality_pairs) as bar:
            for index in range(settings.clip_quality_pairs):
                pair = draw_pair(settings, "clip-quality", index)
                clean.append(scaled(pair.clean))
                spoilt.append(scaled(pair.spoilt))
                quality.append(pair.quality)
                bar.update()
        with atomic_write(cache) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, clean=np.stack(clean), spoilt=np.stack(spoilt), quality=np.float32(quality))
    with np.load(cache, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
