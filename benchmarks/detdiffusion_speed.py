"""What DetDiffusion's parts cost: the perceptive loss per training step, its features in memory, long
vocabularies.

  python benchmarks/detdiffusion_speed.py            the miniature's U-Net, on the CPU
  python benchmarks/detdiffusion_speed.py --steps 20

Steps with and without the loss take turns, so that a busy machine slows both; printed are medians of CPU
seconds and their ratio (at most 1.25 is the aim), what a step takes where latents and masks of images are
not kept, the bytes of the tapped features that stay in memory until the backward pass, and prompts that are
tokenised per second with 65,536 locations.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from timing import timed

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "tests")]

from gen4det.core.yaml_files import merge, read_yaml  # noqa: E402
from gen4det.data.model_settings import ModelSource  # noqa: E402
from gen4det.diffusion.features import FeatureTaps  # noqa: E402
from gen4det.diffusion.pipelines import load_text_to_image  # noqa: E402
from gen4det.engines.base import engine_settings  # noqa: E402
from gen4det.engines.detdiffusion.fit_generator import Learner  # noqa: E402
from gen4det.engines.detdiffusion.layouts import Layout, LayoutObject  # noqa: E402
from gen4det.engines.detdiffusion.settings import WordSettings  # noqa: E402
from gen4det.engines.detdiffusion.vocabulary import extend_vocabulary  # noqa: E402
from gen4det.engines.detdiffusion.words import location_words, prompt  # noqa: E402

MODEL = ModelSource(path=str(ROOT / "resources/miniature/stable-diffusion"))
BOXES = [(8, 8, 40, 40), (60, 10, 50, 40), (10, 70, 40, 50), (64, 64, 60, 60)]


class OneImage:
    """Stands where images are read: the same one every time."""

    def image(self, name: str) -> np.ndarray:
        """uint8 (128, 128, 3)."""
        return np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)


def learner(weight: float) -> Learner:
    """The miniature's generator with a weight of the perceptive loss."""
    values = read_yaml(ROOT / "config/config.yaml")["engines"]["detdiffusion"]
    changes = {"method": "detdiffusion", "generator": {"perception": {"weight": weight}}}
    settings = engine_settings("detdiffusion", merge(values, changes), source="benchmark")
    pipeline = load_text_to_image(MODEL)
    extend_vocabulary(pipeline, settings.words, attributes=True)
    objects = tuple(LayoutObject(1 + place, "cup", box, "easy") for place, box in enumerate(BOXES))
    layouts = [Layout(1, "1.png", 128, 128, objects)]
    return Learner(pipeline, settings, layouts, OneImage(), list(range(1, 25)))


def step(one: Learner, number: int) -> None:
    """Forwards and backwards."""
    sum(one.step_loss(number, np.random.default_rng(number)).values()).backward()
    for module in one.modules:
        module.zero_grad()


def tapped_bytes(one: Learner) -> int:
    """Size of the features of one image that the head reads."""
    taps = FeatureTaps(one.unet, "up")
    with torch.no_grad(), taps.capture() as features:
        states = torch.zeros(1, 77, one.unet.config.cross_attention_dim)
        one.unet(torch.zeros(1, 4, *one.cells), 1, encoder_hidden_states=states)
    return sum(level.numel() * level.element_size() for level in features.maps.values())


def prompts_per_second() -> tuple[float, float]:
    """Prompts of four objects, tokenised one by one: with the miniature's words, and with 65,536 locations
    more."""
    tokenizer, words = load_text_to_image(MODEL).tokenizer, WordSettings()
    objects = tuple(LayoutObject(1, "cup", box, "easy") for box in BOXES)
    text = prompt(Layout(1, "1.png", 128, 128, objects), words)
    rates = []
    for new in ([], [*location_words(words), "[easy]", "[hard]"]):
        tokenizer.add_tokens(new)
        _, cpu = timed(lambda: [tokenizer(text, verbose=False) for _ in range(2000)], "cpu")
        rates.append(2000 / cpu)
    return rates[0], rates[1]


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    learners = {"without": learner(0.0), "with": learner(0.01), "forgetful": learner(0.01)}
    learners["forgetful"].posteriors.keeps = learners["forgetful"].samples.keep_masks = False
    seconds = {name: [] for name in learners}
    for number in range(args.steps + 1):
        for name, one in learners.items():
            _, cpu = timed(lambda one=one, number=number: step(one, number), "cpu")
            seconds[name] += [cpu] if number else []  # the first one warms up
    without, with_loss, anew = (statistics.median(seconds[name]) for name in learners)
    print(f"training step: {without:.3f} s without, {with_loss:.3f} s with the perceptive loss: "
          f"{with_loss / without:.2f} times")  # fmt: skip
    print(f"with images read, encoded and masked anew: {anew:.3f} s")
    print(f"features tapped: {tapped_bytes(learners['with']) / 2**20:.2f} MiB per image")
    few, many = prompts_per_second()
    print(f"prompts tokenised per CPU second: {few:.0f} with the model's words, {many:.0f} with 65,538 more")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = load_text_to_image(MODEL)
        _, added = timed(lambda: extend_vocabulary(pipeline, WordSettings(), attributes=True), "cpu")
        _, saved = timed(lambda: pipeline.tokenizer.save_pretrained(folder), "cpu")
    print(f"65,538 words: {added:.1f} CPU seconds to add with their vectors, {saved:.1f} to save")


if __name__ == "__main__":
    main()
