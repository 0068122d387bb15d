"""A page of images with boxes, to see with one's own eyes whether labels are any good."""

import random
from collections import defaultdict
from math import ceil

from matplotlib.figure import Figure

from gen4det.core.provenance import seed_for
from gen4det.data.images import ImageStore, image_name
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import PAGE_WIDTH, as_text, style

COLUMNS = 4


def labelled_page(store: ImageStore, data: dict, *, count: int = 12, seed: int = 0) -> Figure:
    """Some images with their boxes, names and, where there are some, scores.

    Args:
        store: of the images.
        data: COCO dictionary.
        count: images at most; those with boxes come first.
        seed: which ones.
    """
    labels: dict[int, list[dict]] = defaultdict(list)
    for annotation in data["annotations"]:
        labels[annotation["image_id"]].append(annotation)
    names = {category["id"]: category["name"] for category in data["categories"]}
    order = sorted(data["images"], key=lambda image: image["id"])
    random.Random(seed_for(seed, "labelled page")).shuffle(order)
    order.sort(key=lambda image: not labels[image["id"]])
    chosen = order[:count]
    lines = ceil(len(chosen) / COLUMNS)
    tallest = max(image["height"] / image["width"] for image in chosen)
    height = lines * (min(tallest, 2) * PAGE_WIDTH / COLUMNS + 0.3) + 0.4

    def text(_: int, label: dict) -> str:
        score = f" {label['score']:.2f}" if "score" in label else ""
        return as_text(names[label["category_id"]]) + score

    with style():
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        boxes = len(data["annotations"])
        with_boxes = sum(bool(found) for found in labels.values())
        title = f"{boxes} boxes in {with_boxes} of {len(order)} images; {len(chosen)} of them"
        figure.suptitle(title, fontsize=8, fontweight="bold")
        panels = figure.subplots(lines, COLUMNS, squeeze=False)
        for panel, image in zip(panels.flat, chosen, strict=False):
            show_image(panel, store.image(image_name(image)))
            draw_instances(panel, labels[image["id"]], (image["height"], image["width"]), label=text)
            panel.set_xlabel(as_text(image_name(image)), fontsize=5)
        for panel in panels.flat[len(chosen) :]:
            panel.set_axis_off()
    return figure
