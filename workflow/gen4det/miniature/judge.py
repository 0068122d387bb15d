"""Judging the foundation models before anything is built on them.

The judge is a classifier that never saw a generated image. It calls the category of single-object
samples; the share of samples it calls by the prompted name is the models' fidelity.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionGLIGENPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from tqdm import tqdm, trange

from gen4det.core.provenance import seed_for, write_json
from gen4det.miniature.autoencoder import to_tensor
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.classifier import Classifier, all_category_ids, small_backbone, train_classifier
from gen4det.miniature.corpus import iterate_corpus
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.inpainting import OBJECT_SIZE, SCENE_SIZE
from gen4det.miniature.renderer import Placed, render_scene

SAMPLES, GRID, STEPS, GUIDANCE, JUDGE_STEPS = 16, 12, 15, 5.0, 400
SCENES, MARGIN = 72, 0.15
"""Scenes that are repainted; surroundings that are cut out with an object, as share of its box's side."""


def make(job: FoundationJob) -> dict:
    """Write `judgement.json` and pictures: `samples.png` (a row per category), `reconstructions.png` and
    `inpainting.png` (originals, one object repainted, all repainted)."""
    with job.result() as output:
        return judge(job, output)


def judge(job: FoundationJob, output: Path) -> dict:
    """Judge into a folder that exists; facts for the record."""
    settings, device = job.settings, job.device
    diffusion, inpainting = job.inputs["diffusion"], job.inputs["inpainting"]
    pipeline = StableDiffusionPipeline.from_pretrained(
        diffusion, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    ).to(device)
    judgement = {"reconstruction": reconstruction_error(settings, pipeline.vae, output, device)}
    torch.manual_seed(settings.seed)
    classifier = Classifier(*small_backbone(), all_category_ids())
    accuracy = train_classifier(job, classifier, JUDGE_STEPS)["heldout_accuracy"]
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
    judgement["grounded_inpainting"] = judge_inpainting(settings, classifier, inpainting, output, device)
    half = len(rows) // 2
    grid = np.concatenate([np.concatenate(rows[:half], 0), np.concatenate(rows[half:], 0)], 1)
    Image.fromarray(grid).save(output / "samples.png")
    write_json(output / "judgement.json", judgement, indent=1)
    return {"judge_accuracy": accuracy}


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
def judge_inpainting(
    settings: FoundationTraining, classifier: Classifier, model: Path, output: Path, device: str
) -> dict:
    """Repaint objects of held-out scenes in their boxes and have the classifier call each.

    Returns:
        {"alone", "together", "originals", "per_category"}: shares of the objects that are called by their
        name, one of each scene repainted alone, all of a scene repainted in one pass, and, for comparison, as
        they were rendered, partly hidden behind each other; per category those repainted alone.
    """
    pipeline = inpainting_pipeline(model, device)
    alone: dict[str, list[bool]] = {category.name: [] for category in CATEGORIES}
    together, originals, shown = [], [], []
    for index in trange(SCENES, desc="judge inpainting", unit="scene"):
        rng = np.random.default_rng(seed_for(settings.seed, "inpainting-heldout", index))
        others = rng.choice(len(CATEGORIES), rng.integers(0, 3), replace=False).tolist()
        picks = [CATEGORIES[i] for i in (index % len(CATEGORIES), *others)]
        scene = render_scene(int(rng.integers(2**62)), picks, SCENE_SIZE, OBJECT_SIZE)
        objects = sorted(scene.objects, key=lambda placed: placed.category.name != picks[0].name)
        seed = seed_for(settings.seed, "inpainting-judge", index)
        one = repaint(pipeline, scene.image, objects[:1], seed)
        alone[objects[0].category.name] += _called(classifier, one, objects[:1], device)
        every = repaint(pipeline, scene.image, objects, seed)
        together += _called(classifier, every, objects, device)
        originals += _called(classifier, scene.image, objects, device)
        shown.append(np.concatenate([scene.image, one, every]))
    picture = np.concatenate([np.concatenate(shown[start : start + 12], 1) for start in (0, 12)])
    Image.fromarray(picture).save(output / "inpainting.png")
    shares = {name: float(np.mean(right)) for name, right in alone.items() if right}
    return {
        "alone": round(float(np.mean([right for calls in alone.values() for right in calls])), 4),
        "together": round(float(np.mean(together)), 4),
        "originals": round(float(np.mean(originals)), 4),
        "per_category": {name: round(share, 4) for name, share in shares.items()},
    }


def inpainting_pipeline(model: Path, device: str) -> StableDiffusionGLIGENPipeline:
    """diffusers' own pipeline over a grounded inpainting model, in float32, with DPM-Solver++."""
    pipeline = StableDiffusionGLIGENPipeline.from_pretrained(
        model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    ).to(device)
    pipeline.vae.register_to_config(sample_size=SCENE_SIZE)  # to which the pipeline resizes what it repaints
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def repaint(
    pipeline: StableDiffusionGLIGENPipeline, image: np.ndarray, objects: Sequence[Placed], seed: int
) -> np.ndarray:
    """The image, uint8 (H, W, 3), with the boxes of some of its objects painted in one pass.

    Args:
        pipeline: of `inpainting_pipeline`.
        seed: of the noise.
    """
    names = [placed.category.name for placed in objects]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (placed.box for placed in objects)]
    torch.manual_seed(seed)  # the pipeline draws from the global stream
    painted = pipeline(
        ", ".join(dict.fromkeys(names)), height=SCENE_SIZE, width=SCENE_SIZE, num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, gligen_phrases=names, gligen_scheduled_sampling_beta=1.0,
        gligen_boxes=[[side / SCENE_SIZE for side in box] for box in boxes],
        gligen_inpaint_image=Image.fromarray(image), output_type="np",
    ).images[0]  # fmt: skip
    return (painted * 255).round().astype(np.uint8)


def _called(classifier: Classifier, image: np.ndarray, objects: Sequence[Placed], device: str) -> list[bool]:
    """Whether the classifier calls what it sees in the box of each object by the object's name."""
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (placed.box for placed in objects)]
    calls = _calls(classifier, image, boxes, device)
    return [call == placed.category.id - 1 for call, placed in zip(calls, objects, strict=True)]


def _calls(classifier: Classifier, image: np.ndarray, boxes: list[tuple], device: str) -> list[int]:
    """Index of the category that the classifier sees in each box (x0, y0, x1, y1) of an image."""
    crops = []
    for x0, y0, x1, y1 in boxes:
        margin = MARGIN * max(x1 - x0, y1 - y0)
        centre, half = ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2 + margin
        window = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
        crops.append(
            np.asarray(
                Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC, box=_inside(window, image))
            )
        )
    return classifier(to_tensor(np.stack(crops), device)).argmax(1).tolist()


def _inside(window: tuple[float, ...], image: np.ndarray) -> tuple[float, ...]:
    """A square window shifted, and where it must be shrunk, into the image."""
    height, width = image.shape[:2]
    side = min(window[2] - window[0], height, width)
    x, y = (min(max(window[axis], 0), length - side) for axis, length in ((0, width), (1, height)))
    return x, y, x + side, y + side


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
