"""How good a fitted head labels novel categories, against exact truth: scenes that the miniature renders.

    E=results/miniature/engines/coco-base/instagen
    python benchmarks/instagen_pseudo_labels.py --head $E/head/model --generator $E/generator/model \
        --categories results/miniature/data/coco-base/dataset.json

Held-out scenes of one or two objects are encoded, get the noise of time step 1, and are labelled under the
prompt that names what they show. Precision and recall count boxes that overlap a true one of their category
by half, each true one once. The paper measures the same on 200 labelled images (supplement, S1).
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from gen4det.core.provenance import seed_for
from gen4det.data.datasets import load_dataset
from gen4det.diffusion.latents import encode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.replay import add_noise, noise_schedule
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.words import caption_of
from gen4det.engines.instagen.feature_bank import FeatureBank, texts_of
from gen4det.engines.instagen.samples import slots_of
from gen4det.engines.instagen.saved_head import load_head
from gen4det.engines.instagen.teacher import found_by
from gen4det.engines.instagen.vocabulary import vocabulary
from gen4det.filters.agreement import box_iou
from gen4det.miniature.corpus import corpus_item
from gen4det.miniature.foundation_settings import FoundationTraining

STEP = 1
BATCH = 16
BETAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def main() -> None:
    """Print precision and recall of base and of novel categories for several least scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("head", "generator", "categories"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--prompt", default="a photograph of {}")
    args = parser.parse_args()
    dataset = load_dataset(args.categories)
    words = vocabulary(dataset, "open")
    bank = FeatureBank(ModelSource(path=str(args.generator)), "float32", "cpu")
    head, vectors = load_head(args.head, bank), bank.vectors(dataset.categories)
    counted = {(kind, beta): np.zeros(3, int) for kind in ("base", "novel") for beta in BETAS}
    for records, truth, latents in batches(args.scenes, args.prompt, bank):
        found = found_by(
            head,
            bank(latents, records),
            texts_of(records, vectors),
            slots_of(records),
            records,
            words.known,
            min(BETAS),
        )
        for kind, categories in (("base", words.base), ("novel", words.novel)):
            for beta in BETAS:
                for of_image, there in zip(found, truth, strict=True):
                    chosen = [it for it in of_image if it[0] in categories and it[1] > beta]
                    wanted = [it for it in there if it[0] in categories]
                    counted[kind, beta] += matched(chosen, wanted), len(chosen), len(wanted)
    print("kind   beta  precision  recall  labels  objects")
    for (kind, beta), (right, labels, objects) in counted.items():
        precision, recall = (100 * right / max(it, 1) for it in (labels, objects))
        print(f"{kind:6} {beta:4}  {precision:9.1f}  {recall:6.1f}  {labels:6}  {objects:7}")


def batches(scenes: int, prompt: str, bank: FeatureBank):
    """Records, true objects and noisy latents of held-out scenes, batch by batch."""
    settings, vae = FoundationTraining(), bank.pipeline.vae
    schedule, cell = noise_schedule(bank.pipeline.scheduler), bank.pipeline.vae_scale_factor
    for first in range(0, scenes, BATCH):
        items = [
            corpus_item(settings, it, "pseudo labels") for it in range(first, min(first + BATCH, scenes))
        ]
        records, truth = [], []
        for item in items:
            side = item.scene.image.shape[0]
            categories = list(dict.fromkeys(placed.category.id for placed in item.scene.objects))
            names = list(dict.fromkeys(placed.category.name for placed in item.scene.objects))
            records.append({
                "width": side, "height": side, "last_step": STEP, "categories": categories,
                "prompt": caption_of(names, prompt),
            })  # fmt: skip
            truth.append([(placed.category.id, list(placed.box)) for placed in item.scene.objects])
        generators = [image_generator(seed_for(first, number)) for number in range(len(items))]
        shape = (vae.config.latent_channels, side // cell, side // cell)
        with torch.no_grad():
            images = np.stack([item.scene.image for item in items])
            clean = encode(vae, images, draw_noise(generators, shape))
        yield records, truth, add_noise(schedule, clean, draw_noise(generators, shape), STEP)


def matched(found: list[tuple], truth: list[tuple]) -> int:
    """Labels, best first, that overlap a true object of their category by half, each of those once."""
    left, right = list(truth), 0
    for category, _, box in sorted(found, key=lambda it: -it[1]):
        for place, (wanted, true_box) in enumerate(left):
            if wanted == category and box_iou(np.array([box]), np.array([true_box]))[0, 0] >= 0.5:
                right += 1
                del left[place]
                break
    return right


if __name__ == "__main__":
    main()
