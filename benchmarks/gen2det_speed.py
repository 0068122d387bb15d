"""How fast Gen2Det paints, as ratios measured side by side in one run.

  stock     diffusers' StableDiffusionGLIGENPipeline, one image at a time: the same steps, size, boxes
  batched   our loop, all images in one batch, from real image to real size and pasted back
  serial    our loop, one image at a time

Ratios above 1 mean: faster than what they are compared with. U-Net calls are counted. Without --model, random
weights of the miniature's shape are measured; speed does not depend on the weights.

  python benchmarks/gen2det_speed.py --steps 12 --images 8 --threads 2
"""

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import PNDMScheduler, StableDiffusionGLIGENPipeline
from diffusers.utils import logging
from PIL import Image
from timing import timed
from transformers import CLIPTokenizer

from gen4det.diffusion.latent_boxes import relative_corners
from gen4det.diffusion.schedulers import make_scheduler
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.diffusion.text import TextStates
from gen4det.engines.gen2det.draw import Painter
from gen4det.engines.gen2det.plan import plan_manifest
from gen4det.engines.gen2det.settings import ModelSize, Settings
from gen4det.miniature.autoencoder import new_autoencoder
from gen4det.miniature.diffusion import NOISE, new_text_encoder, new_unet
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.tokenizer import build_tokenizer

NAMES = ("cup", "fish", "key")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder in the layout of StableDiffusionGLIGENPipeline")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=128, help="side of the square images in px")
    parser.add_argument("--scheduler", default="dpm-solver++")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--images", type=int, default=8, help="in one batch")
    parser.add_argument("--boxes", type=int, default=3, help="in each image")
    parser.add_argument("--repeats", type=int, default=3, help="medians are shown")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            write_random_miniature(Path(folder), args.size)
        print(json.dumps(measure(args, args.model or folder), indent=1))


def write_random_miniature(folder: Path, size: int) -> None:
    """A pipeline of the shape of the miniature's grounded inpainting, untrained."""
    torch.manual_seed(0)
    shape = FoundationTraining()
    build_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    vae = new_autoencoder(shape)
    vae.register_to_config(sample_size=size)  # otherwise the stock pipeline paints smaller images
    latent_size = size // 2 ** (len(vae.config.block_out_channels) - 1)
    StableDiffusionGLIGENPipeline(
        vae=vae,
        text_encoder=new_text_encoder(shape, tokenizer),
        tokenizer=tokenizer,
        unet=new_unet(shape, latent_size, in_channels=9, attention_type="gated"),
        scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def measure(args: argparse.Namespace, model: str) -> dict:
    """All figures of one run."""
    settings = Settings(
        size=ModelSize(height=args.size, width=args.size),
        denoising=DenoisingSettings(scheduler=args.scheduler, steps=args.steps),
        batch_size=args.images,
        generations_per_reference=1,
    )
    painter = Painter(ModelSource(path=model), settings, args.device)
    rows = plan_manifest(scenes(args), settings, 0, painter.pipeline.vae_scale_factor)
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 256, (args.size, args.size, 3), dtype=np.uint8) for _ in rows]
    stock = StableDiffusionGLIGENPipeline(**stock_parts(painter), requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    stock.vae.register_to_config(sample_size=args.size)
    checkpoint = stock.scheduler

    def one_by_one() -> None:
        for row, original in zip(rows, originals, strict=True):
            stock.scheduler = make_scheduler(checkpoint, args.scheduler)
            stock(
                row["prompt"],
                height=args.size,
                width=args.size,
                num_inference_steps=args.steps,
                gligen_scheduled_sampling_beta=1.0,
                gligen_phrases=[entry["phrase"] for entry in row["objects"]],
                gligen_boxes=[relative_corners(e["bbox"], original.shape[:2]) for e in row["objects"]],
                gligen_inpaint_image=Image.fromarray(original),
                output_type="np",
            )

    def ours(batch_size: int) -> None:
        painter.text = TextStates(painter.pipeline)  # remembers nothing, as the stock pipeline
        for first in range(0, len(rows), batch_size):
            batch = slice(first, first + batch_size)
            painter.paint(rows[batch], originals[batch])

    runs: dict[str, Callable[[], None]] = {
        "stock": one_by_one,
        "batched": lambda: ours(len(rows)),
        "serial": lambda: ours(1),
    }
    calls = {name: counted(painter, run) for name, run in runs.items()}  # also warms up
    wall, cpu = ({name: [] for name in runs} for _ in range(2))
    for _ in range(args.repeats):  # interleaved, so that a busy moment of the machine hits all alike
        for name, run in runs.items():
            seconds = timed(run, args.device)
            wall[name].append(seconds[0])
            cpu[name].append(seconds[1])
    return {
        "images": args.images,
        "size": args.size,
        "boxes": args.boxes,
        "steps": args.steps,
        "threads": args.threads,
        "unet_calls": calls,
        "unet_calls_per_image": {name: count / args.images for name, count in calls.items()},
        "wall": summary(wall, args.images),
        "cpu": summary(cpu, args.images),
    }


def scenes(args: argparse.Namespace) -> dict:
    """Annotations of images with random boxes."""
    rng = np.random.default_rng(0)
    images = [
        {"id": i, "file_name": f"{i}.png", "width": args.size, "height": args.size}
        for i in range(args.images)
    ]
    annotations = []
    for image in images:
        for _ in range(args.boxes):
            sides = rng.integers(args.size // 8, args.size // 2, 2)
            corner = rng.integers(0, args.size - sides)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image["id"],
                    "category_id": int(rng.integers(len(NAMES))),
                    "bbox": [*corner.tolist(), *sides.tolist()],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def stock_parts(painter: Painter) -> dict:
    """The very models that ours uses."""
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    parts = {name: getattr(painter.pipeline, name) for name in names}
    return {**parts, "safety_checker": None, "feature_extractor": None}


def counted(painter: Painter, run: Callable[[], None]) -> int:
    """U-Net calls of one run, whoever makes them: both use the same U-Net."""
    before = painter.unet_calls
    run()
    return painter.unet_calls - before


def summary(seconds: dict[str, list[float]], images: int) -> dict:
    """Medians and their ratios; CPU seconds stay meaningful on a busy machine."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "images_per_second": {name: round(images / s, 3) for name, s in median.items()},
        "seconds": {name: [round(s, 3) for s in times] for name, times in seconds.items()},
        "batched_over_stock": round(median["stock"] / median["batched"], 3),
        "serial_over_stock": round(median["stock"] / median["serial"], 3),
        "batched_over_serial": round(median["serial"] / median["batched"], 3),
    }


if __name__ == "__main__":
    main()
