"""What self-training changes: precision and recall along the epochs, and a page of boxes before and after.

    R=results/miniature
    python benchmarks/instagen_self_training.py --engine $R/engines/coco-base/instagen --begins 24 \\
        --categories $R/data/coco-base/dataset.json \\
        --shard $R/synthetic/coco-base/instagen/shards/00000.arrow --output page.pdf

Needs a head that kept some epochs (`head: {keep_every: 3}`), the last before the teacher labels among them.
Truth is that of `instagen_pseudo_labels.py`: scenes that the miniature renders.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from instagen_pseudo_labels import batches, matched
from matplotlib.figure import Figure

from gen4det.data.datasets import load_dataset
from gen4det.data.images import ImageStore
from gen4det.data.shards import image_folder, load_shard, read_array
from gen4det.diffusion.settings import ModelSource
from gen4det.engines.instagen.draw import LATENTS
from gen4det.engines.instagen.feature_bank import FeatureBank, texts_of
from gen4det.engines.instagen.samples import slots_of
from gen4det.engines.instagen.saved_head import kept_epochs, load_head
from gen4det.engines.instagen.teacher import found_by
from gen4det.engines.instagen.vocabulary import vocabulary
from gen4det.engines.shard_writer import FIRST_IMAGE_ID
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import PAGE_WIDTH, PALETTE, as_text, save_figure, style

KINDS = ("base", "novel")
BEFORE, AFTER = PALETTE[2], PALETTE[3]


def main() -> None:
    """Print the curve and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("engine", "categories", "shard", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--generator", type=Path, help="the model whose features are seen; default: the engine's"
    )
    parser.add_argument("--begins", type=int, required=True, help="epochs before the teacher labels")
    parser.add_argument("--beta", type=float, default=0.4)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--shown", type=int, default=6, help="images of base and of novel categories each")
    parser.add_argument("--prompt", default="a photograph of {}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(args.categories)
    words, names = vocabulary(dataset, "open"), {it["id"]: it["name"] for it in dataset.categories}
    sets = {"base": frozenset(words.base), "novel": frozenset(words.novel)}
    folder = args.engine / "head/model"
    bank = FeatureBank(
        ModelSource(path=str(args.generator or args.engine / "generator/model")), "float32", "cpu"
    )
    vectors = bank.vectors(dataset.categories)
    kept = kept_epochs(folder)
    heads = {epoch: load_head(folder, bank, path) for epoch, path in kept.items()}
    heads[None] = load_head(folder, bank)

    def found(head, features, records):
        seen = features, texts_of(records, vectors), slots_of(records)
        return found_by(head, *seen, records, words.known, args.beta)

    counts = {(epoch, kind): np.zeros(3, int) for epoch in heads for kind in KINDS}
    for records, truth, latents in batches(args.scenes, args.prompt, bank):
        features = bank(latents, records)
        for epoch, head in heads.items():
            for of_image, there in zip(found(head, features, records), truth, strict=True):
                for kind, wanted in sets.items():
                    labels, objects = ([it for it in all_ if it[0] in wanted] for all_ in (of_image, there))
                    counts[epoch, kind] += matched(labels, objects), len(labels), len(objects)
    print(f"beta {args.beta}, {args.scenes} scenes\nepochs  kind   precision  recall  labels  objects")
    for (epoch, kind), (right, labels, objects) in counts.items():
        shares = f"{100 * right / max(labels, 1):9.1f}  {100 * right / max(objects, 1):6.1f}"
        print(f"{epoch or 'last':>6}  {kind:5}  {shares}  {labels:6}  {objects:7}")

    shard = load_shard(args.shard)
    store = ImageStore(image_folder(args.shard, shard))
    archive = Path(shard["info"]["archive"]).name
    chosen = [
        record
        for kind in KINDS
        for record in _one_of_each([it for it in shard["images"] if it["set"] == kind], args.shown)
    ]
    latents = np.stack([read_array(store, archive, it["id"] - FIRST_IMAGE_ID, LATENTS) for it in chosen])
    features = bank(torch.from_numpy(latents), chosen)
    boxes = [found(heads[epoch], features, chosen) for epoch in (args.begins, None)]
    images = [store.image(f"{archive}/{Path(it['file_name']).name}") for it in chosen]
    save_figure(page(chosen, images, boxes, names, counts, args), args.output)


def _one_of_each(records: list[dict], count: int) -> list[dict]:
    """Images whose own categories differ, evenly spread over them."""
    first = list({it["categories"][0]: it for it in reversed(records)}.values())[::-1]
    return [first[place] for place in np.linspace(0, len(first) - 1, min(count, len(first))).astype(int)]


def page(records, images, boxes, names, counts, args) -> Figure:
    """Precision and recall along the epochs above; below prompts and pictures, before and after."""
    epochs = [epoch for epoch, kind in counts if kind == "base"]
    places = [epoch or epochs[-2] + epochs[0] for epoch in epochs]  # the last one ends a like stretch
    columns, side = args.shown, PAGE_WIDTH / args.shown
    with style():
        figure = Figure(figsize=(PAGE_WIDTH, 2.2 + 4 * (side + 0.15)), layout="constrained")
        top, below = figure.subfigures(2, 1, height_ratios=(2.0, 4 * (side + 0.15)))
        for axes, title, place in zip(top.subplots(1, 2), ("precision", "recall"), (1, 2), strict=True):
            for kind, colour in zip(KINDS, PALETTE[1:3], strict=True):
                shares = [100 * counts[it, kind][0] / max(counts[it, kind][place], 1) for it in epochs]
                axes.plot(places, shares, color=colour, marker="o", markersize=3, label=kind)
            axes.axvline(args.begins, color="#666666", linewidth=0.6, linestyle=":")
            axes.set(title=f"{title}, score above {args.beta:g}", xlabel="epochs", ylim=(0, 103))
            axes.legend(frameon=False, loc="lower right")
        panels = below.subplots(4, columns, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for place, (record, image) in enumerate(zip(records, images, strict=True)):
            row, column = 2 * (record["set"] == "novel"), place % columns
            for after, colour in enumerate((BEFORE, AFTER)):
                axes = panels[row + after, column]
                show_image(axes, image)
                shown = [{"bbox": box, "text": f"{score:.2f}"} for _, score, box in boxes[after][place]]
                draw_instances(
                    axes, shown, image.shape[:2], label=lambda _, it: it["text"], fontsize=5, colours=[colour]
                )
                if not after:
                    axes.set_title(as_text(" and ".join(names[it] for it in record["categories"])))
        title = "Boxes before self-training (orange) and after it (green); above base, below novel categories"
        below.suptitle(title, fontsize=7)
    return figure


if __name__ == "__main__":
    main()
