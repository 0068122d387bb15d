"""What DiffusionEngine's two passes cost, as ratios measured side by side in one run.

  feature pass     one evaluation of the U-Net under the empty prompt, against one whose batch guidance has
                   doubled, as the released code makes it; autoencoder and detector are in neither
  drawing          image to image with labels from the last step's features, against the same without looking

Ratios above 1 mean: faster than what they are compared with. Without --weights, an untrained adapter of the
miniature's shape is measured: it is sure of nothing, so it has the most boxes to sort out.

  python benchmarks/diffusionengine_speed.py --threads 1
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import timed

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))
sys.path.insert(0, str(ROOT / "tests"))

from tiny_adapter import untrained  # noqa: E402

from gen4det.detection.labelling import detect_in_features  # noqa: E402
from gen4det.detection.weights import Detector, load_detector  # noqa: E402
from gen4det.diffusion.latents import decode  # noqa: E402
from gen4det.diffusion.noise import image_generator  # noqa: E402
from gen4det.diffusion.pipelines import load_text_to_image  # noqa: E402
from gen4det.diffusion.replay import features_of  # noqa: E402
from gen4det.diffusion.settings import ModelSource  # noqa: E402
from gen4det.diffusion.text import TextStates  # noqa: E402
from gen4det.engines.diffusionengine.redraw import redraw  # noqa: E402


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT / "resources/miniature/stable-diffusion"))
    parser.add_argument("--config", default=str(ROOT / "config/detectors/miniature_diffusion_faster_rcnn.py"))
    parser.add_argument("--weights", type=Path, help="a trained adapter on that model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=128, help="side of the square images in px")
    parser.add_argument("--steps", type=int, default=13, help="that are made, of 20")
    parser.add_argument("--images", type=int, default=8, help="in one batch")
    parser.add_argument("--repeats", type=int, default=3, help="medians are shown")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    print(json.dumps(measure(args), indent=1))


def adapter_of(args: argparse.Namespace) -> Detector:
    """The adapter that is measured."""
    if args.weights:
        return load_detector(args.weights, device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        categories = [{"id": i, "name": str(i)} for i in range(24)]
        weights = untrained(Path(folder) / "weights.safetensors", args.config, args.model, categories)
        return load_detector(weights, device=args.device)


@torch.inference_mode()
def measure(args: argparse.Namespace) -> dict:
    """All figures of one run."""
    adapter = adapter_of(args)
    frozen = adapter.model.backbone.features
    frozen.to(torch.device(args.device))
    source = ModelSource(path=args.model)
    pipeline = load_text_to_image(source, args.device, unet=frozen.unet, vae=frozen.vae)
    prompts = TextStates(pipeline)
    text, negative = torch.cat([prompts("a photo of a cup")] * args.images), prompts("")
    shape = frozen.latent_shape(args.size, args.size)
    latents = torch.randn(args.images, *shape, device=args.device)
    references = np.random.default_rng(0).integers(
        0, 256, (args.images, args.size, args.size, 3), dtype=np.uint8
    )

    def doubled() -> None:
        states = torch.cat([negative.expand(args.images, -1, -1), text])
        with frozen.taps.capture(slice(args.images, None)) as features:
            frozen.unet(latents.repeat(2, 1, 1, 1), 1, encoder_hidden_states=states, return_dict=False)
        features.pyramid()

    def draw(labels: bool) -> None:
        drawn, features = redraw(
            pipeline, frozen.taps, references, text, negative,
            nominal_steps=20, steps=args.steps, eta=[0.1] * args.images, guidance=[7.5] * args.images,
            generators=[image_generator(seed) for seed in range(args.images)], watched=labels,
        )  # fmt: skip
        decode(pipeline.vae, drawn, "round")
        if labels:
            detect_in_features(adapter, features)

    runs: dict[str, Callable[[], object]] = {
        "features": lambda: features_of(frozen.taps, latents, 1, frozen.null_text),
        "features, doubled": doubled,
        "drawing": lambda: draw(labels=False),
        "drawing with labels": lambda: draw(labels=True),
    }
    for run in runs.values():
        run()
    wall, cpu = ({name: [] for name in runs} for _ in range(2))
    for _ in range(args.repeats):  # interleaved, so that a busy moment of the machine hits all alike
        for name, run in runs.items():
            seconds = timed(run, args.device)
            wall[name].append(seconds[0])
            cpu[name].append(seconds[1])
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if args.device == "cpu"
        else torch.cuda.max_memory_allocated()
    )
    return {
        "images": args.images, "size": args.size, "steps": args.steps, "threads": args.threads,
        "peak_gib": round(peak / 2**30, 2), "wall": summary(wall), "cpu": summary(cpu),
    }  # fmt: skip


def summary(seconds: dict[str, list[float]]) -> dict:
    """Ratios, medians over the pairs of each round; CPU seconds stay meaningful on a busy machine."""

    def ratio(slow: str, fast: str) -> float:
        rounds = zip(seconds[slow], seconds[fast], strict=True)
        return round(statistics.median(one / other for one, other in rounds), 3)

    return {
        "seconds": {name: [round(s, 3) for s in times] for name, times in seconds.items()},
        "features_over_doubled": ratio("features, doubled", "features"),
        "labelled_over_plain": ratio("drawing", "drawing with labels"),
    }


if __name__ == "__main__":
    main()
