"""How far drawn images are from their references, by encode ratio; and whether both labellings agree.

Draws some references of a data set at several encode ratios, each with the control (the picture encoded
again), prints the correlation with the reference and how many of the last step's boxes the finished picture
confirms, and writes a page of them.

  python benchmarks/diffusionengine_encode_ratio.py --dataset results/miniature/data/coco/dataset.json \\
      --weights results/miniature/detectors/coco/adapter/real/seed0/weights.safetensors --output page.pdf
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import read_yaml
from gen4det.data.datasets import load_dataset
from gen4det.data.references import reference_image
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import Generated, Inputs
from gen4det.engines.diffusionengine.draw import Drawer
from gen4det.engines.diffusionengine.page import Descendant, agreement, encode_ratio_page, similarity
from gen4det.engines.diffusionengine.plan import Planner
from gen4det.engines.diffusionengine.settings import LAST_STEP, PIXELS
from gen4det.engines.diffusionengine.sizes import Frame, framed
from gen4det.evaluation.plotting import save_figure
from gen4det.orchestration.variants import load_engines, read_variants

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=Path, default=ROOT / "config/config.yaml")
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--weights", required=True, type=Path, metavar="FILE", help="the adapter")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=".pdf, .png beside it")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.85, 1.0])
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--shown", type=int, default=4)
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)

    scale = read_yaml(args.scale)
    name = "diffusionengine-control"
    variants = read_variants(ROOT / "config/engines")
    changes = scale["engines"] | {name: {"references": args.references, "generations_per_reference": 1}}
    settings = load_engines([name], changes, variants, source=str(args.scale))[name].settings
    foundation = parse_settings(FoundationSettings, scale["foundation"], source=args.scale)
    dataset = load_dataset(args.dataset)
    inputs = Inputs(dataset, detectors={"adapter": args.weights})
    rows = Planner(settings, foundation, 0, inputs).plan()
    drawer = Drawer(settings, foundation, 0, inputs, device=args.device)
    names = {category["id"]: category["name"] for category in dataset.categories}

    references = [
        framed(reference_image(dataset.train.images, row), Frame(tuple(row["resized"]), tuple(row["crop"])))
        for row in rows
    ]
    steps = [max(1, round(ratio * settings.sampling.steps)) for ratio in args.ratios]
    drawn = [
        [drawer.machine.draw([row | {"steps": made}], image[None])[0] for made in steps]
        for row, image in zip(rows, references, strict=True)
    ]
    strips = []
    for image, items in zip(references, drawn, strict=True):
        seen = drawer.machine.seen(image[None])[0]
        known = drawer.machine.categories
        real = [
            {"bbox": it["bbox"], "score": it["score"], "name": names[known[it["category_id"]]]} for it in seen
        ]
        strips.append((Descendant(image, [], real), [descendant(it, names) for it in items]))
    alike = np.array([[similarity(real.image, it.image) for it in items] for real, items in strips])
    confirmed = [
        np.sum([agreement(items[place], args.threshold) for _, items in strips], axis=0).tolist()
        for place in range(len(steps))
    ]
    save_figure(encode_ratio_page(strips[: args.shown], args.ratios, alike, args.threshold), args.output)
    found = {
        "references": len(rows),
        "steps": steps,
        "correlation": dict(zip(args.ratios, alike.mean(axis=0).round(3).tolist(), strict=True)),
        "last_step_boxes_confirmed_by_the_picture": dict(zip(args.ratios, confirmed, strict=True)),
    }
    print(json.dumps(found, indent=1))


def descendant(item: Generated, names: dict[int, str]) -> Descendant:
    """A drawn image with the boxes of both labellers."""
    by = {
        labeller: [
            {"bbox": it.bbox, "score": it.score, "name": names[it.category_id]}
            for it in item.instances
            if it.labeller == labeller
        ]
        for labeller in (LAST_STEP, PIXELS)
    }
    return Descendant(item.image, by[LAST_STEP], by[PIXELS])


if __name__ == "__main__":
    main()
