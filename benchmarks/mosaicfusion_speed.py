"""How fast MosaicFusion draws, as ratios measured side by side in one run.

  plain     diffusers' StableDiffusionPipeline, one image per region: the same number of U-Net evaluations of
            the same sizes, and as many pixels to decode up to the overlaps
  capture   our canvases with attention recorded, all in one batch
  blind     the same without recording
  serial    our canvases with attention recorded, one at a time
  serial_blind  the same without recording
  released  canvases drawn as the released code goes about it (mosaicfusion_as_released.py), one at a time
  labelling the masks of all regions, in this process

Ratios above 1 mean: faster than what they are compared with. Without --model, a U-Net of the miniature's
shape with random weights is measured; speed does not depend on the weights. `blind` over `released` bounds
what any way of recording attention can gain, as long as the U-Net's own arithmetic stays. What is drawn one
at a time is the first `--alone` canvases; ratios are of seconds per canvas.

  python benchmarks/mosaicfusion_speed.py --steps 15 --canvases 8 --threads 2
  python benchmarks/mosaicfusion_speed.py --threads 1 --alone 1 \
      --sides released serial serial_blind capture blind labelling
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from diffusers.utils import logging
from mosaicfusion_as_released import draw_as_released
from timing import timed
from transformers import CLIPTokenizer

from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from gen4det.diffusion.schedulers import make_scheduler
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.engines.mosaicfusion.draw import CanvasSampler, Heat, crop
from gen4det.engines.mosaicfusion.plan import plan_manifest
from gen4det.engines.mosaicfusion.refinement import label_region
from gen4det.engines.mosaicfusion.settings import Settings
from gen4det.miniature.autoencoder import new_autoencoder
from gen4det.miniature.diffusion import NOISE, new_text_encoder, new_unet
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.tokenizer import build_tokenizer

SIDES = ("plain", "capture", "blind", "serial", "serial_blind", "released", "labelling")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder in the layout of StableDiffusionPipeline")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--region", type=int, nargs=2, default=(64, 64), metavar=("H", "W"), help="px")
    parser.add_argument("--overlap", type=int, nargs=2, default=(8, 8), metavar=("H", "W"), help="px")
    parser.add_argument(
        "--sigma", type=float, default=0.375, help="where the regions meet; 0.5: in the middle"
    )
    parser.add_argument("--scheduler", default="dpm-solver++")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--canvases", type=int, default=8, help="in one batch")
    parser.add_argument("--alone", type=int, help="of these, drawn one at a time; default: all")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--repeats", type=int, default=3, help="medians are shown")
    args = parser.parse_args()
    args.alone = args.alone or args.canvases
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            write_random_miniature(Path(folder))
        print(json.dumps(measure(args, args.model or folder), indent=1))


def write_random_miniature(folder: Path) -> None:
    """The miniature's Stable Diffusion, untrained."""
    torch.manual_seed(0)
    shape = FoundationTraining()
    build_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    vae = new_autoencoder(shape)
    latent_size = shape.image_size // 2 ** (len(vae.config.block_out_channels) - 1)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=new_text_encoder(shape, tokenizer),
        tokenizer=tokenizer,
        unet=new_unet(shape, latent_size),
        scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def measure(args: argparse.Namespace, model: str) -> dict:
    """All figures of one run."""
    settings = Settings(
        region_height=args.region[0],
        region_width=args.region[1],
        overlap_height=args.overlap[0],
        overlap_width=args.overlap[1],
        centre_sigma=args.sigma,
        denoising=DenoisingSettings(scheduler=args.scheduler, steps=args.steps),
        batch_size=args.canvases,
        images_per_category=args.canvases,
        canvases_per_geometry=args.canvases,
        attention_steps=(0, 1000),
    )
    sampler = CanvasSampler(ModelSource(path=model), settings, args.device)
    pipeline = sampler.pipeline
    pipeline.set_progress_bar_config(disable=True)
    categories = [{"id": i, "name": name, "frequency": "r"} for i, name in enumerate(("cup", "fish", "key"))]
    data = {"images": [], "annotations": [], "categories": categories}
    rows = plan_manifest(data, settings, 0, pipeline.tokenizer, pipeline.vae_scale_factor)[: args.canvases]

    def plain() -> None:
        for i, region in enumerate(rows[0]["regions"]):
            pipeline.scheduler = make_scheduler(checkpoint, args.scheduler)
            pipeline(
                [row["regions"][i]["prompt"] for row in rows],
                height=region["box"][3],
                width=region["box"][2],
                num_inference_steps=args.steps,
                output_type="np",
            )

    alone = rows[: args.alone]

    def blind(batches: list[list[dict]]) -> None:
        recorder, sampler.recorder = sampler.recorder, _Idle(sampler.recorder)
        try:
            for batch in batches:
                sampler.draw(batch)
        finally:
            sampler.recorder = recorder

    checkpoint = pipeline.scheduler
    before = sampler.unet_calls
    drawn = sampler.draw(rows)  # also warms up
    calls = sampler.unet_calls - before
    runs: dict[str, Callable[[], object]] = {
        "plain": plain,
        "capture": lambda: sampler.draw(rows),
        "blind": lambda: blind([rows]),
        "serial": lambda: [sampler.draw([row]) for row in alone],
        "serial_blind": lambda: blind([[row] for row in alone]),
        "released": lambda: [draw_as_released(sampler, row) for row in alone],
        "labelling": lambda: label_all(rows, drawn, settings),
    }
    runs = {name: run for name, run in runs.items() if name in args.sides}
    number = {
        name: args.alone if name in ("serial", "serial_blind", "released") else args.canvases for name in runs
    }
    wall, cpu = ({name: [] for name in runs} for _ in range(2))
    for _ in range(args.repeats):  # interleaved, so that a busy moment of the machine hits all alike
        for name, run in runs.items():
            seconds = timed(run, args.device)
            wall[name].append(seconds[0])
            cpu[name].append(seconds[1])
            pipeline.scheduler = checkpoint
    return {
        "canvases": args.canvases,
        "regions": [region["box"] for region in rows[0]["regions"]],
        "threads": args.threads,
        "steps": args.steps,
        "differs_from_released": difference(drawn, draw_as_released(sampler, rows[0])),
        "unet_calls_per_batch": calls,
        "unet_calls_per_image": calls / args.canvases,
        "wall": summary(wall, number),
        "cpu": summary(cpu, number),
        "attention_bytes_per_image": attention_memory(sampler, rows[0], pipeline.vae_scale_factor),
    }


def summary(seconds: dict[str, list[float]], canvases: dict[str, int]) -> dict:
    """Medians per canvas and their ratios; CPU seconds stay meaningful on a busy machine."""
    per_canvas = {name: statistics.median(times) / canvases[name] for name, times in seconds.items()}
    label = per_canvas.get("labelling", 0.0)
    ratios = {
        "capture_over_plain": ("plain", "capture"),
        "capture_over_blind": ("blind", "capture"),
        "batched_over_serial": ("serial", "capture"),
        "batched_over_released": ("released", "capture"),
        "serial_over_released": ("released", "serial"),
        "blind_over_released": ("released", "blind"),
        "serial_blind_over_released": ("released", "serial_blind"),
    }
    known = {name: pair for name, pair in ratios.items() if per_canvas.keys() >= set(pair)}
    return {
        "images_per_second": {name: round(1 / s, 3) for name, s in per_canvas.items()},
        "seconds": {name: [round(s, 3) for s in times] for name, times in seconds.items()},
        **{name: round(per_canvas[a] / per_canvas[b], 3) for name, (a, b) in known.items()},
        "with_labels": {
            name: round((per_canvas[a] + label) / (per_canvas[b] + label), 3)
            for name, (a, b) in known.items()
            if a == "released" and label
        },
        "labelling_share_of_capture": round(label / per_canvas["capture"], 3)
        if "capture" in per_canvas
        else None,
    }


def difference(drawn: tuple[np.ndarray, list[list[Heat]]], released: tuple[np.ndarray, list[Heat]]) -> dict:
    """How far the first canvas is from the released procedure's: in grey levels, and of the maps' peaks."""
    images, heats = drawn
    image, maps = released
    apart = [
        float(np.abs(ours[factor] / ours[factor].max() - theirs[factor] / theirs[factor].max()).max())
        for ours, theirs in zip(heats[0], maps, strict=True)
        for factor in ours
    ]
    return {"grey_levels": int(np.abs(images[0].astype(int) - image).max()), "maps": max(apart)}


class _Idle:
    """A recorder that never records."""

    def __init__(self, recorder: CrossAttentionRecorder):
        self.factors = recorder.factors
        self.into = lambda target, rows=None: recorder.into(None)


def label_all(rows: list[dict], drawn: tuple, settings: Settings) -> None:
    """Masks of all regions, one after the other."""
    for row, image, heats in zip(rows, *drawn, strict=True):
        for region, heat in zip(row["regions"], heats, strict=True):
            box = region["box"]
            label_region(heat, crop(image, box), box, image.shape[:2], settings.masks)


def attention_memory(sampler: CanvasSampler, row: dict, cell: int) -> dict:
    """Bytes of the running sums, and of one running sum per layer, head and prompt token."""
    ours = everything = 0
    heads = next(m.heads for name, m in sampler.pipeline.unet.named_modules() if name.endswith("attn2"))
    for region in row["regions"]:
        size = region["box"][3] // cell, region["box"][2] // cell
        maps = TokenMaps([region["tokens"]], "mean", size, sampler.recorder.factors)
        ours += maps.nbytes
        for factor, (height, width) in maps.sizes.items():
            everything += 4 * height * width * 77 * heads * sampler.recorder.layers[factor]
    return {"streaming": ours, "every_softmax_summed": everything, "ratio": round(everything / ours)}


if __name__ == "__main__":
    main()
