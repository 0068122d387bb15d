"""The same layouts as several engines draw them, with what a detector of real images finds in each."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from gen4det.core.provenance import seed_for
from gen4det.data.annotations import index_annotations
from gen4det.data.images import ImageStore, image_name
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import PAGE_WIDTH, PALETTE, as_text, style

LAYOUTS = 5
"""Shown on a page."""
LEAST_SCORE = 0.5
"""Of detections that are drawn."""


@dataclass(frozen=True)
class DrawnSet:
    """What one engine drew."""

    name: str
    images: ImageStore
    data: dict
    """COCO dictionary of all shards; records name their `reference_image_id`."""
    found: dict[str, list[list[float]]]
    """Detections by image id."""

    def by_layout(self) -> dict[int, dict]:
        """The first image of each layout, by the id of the real image."""
        records: dict[int, dict] = {}
        for record in self.data["images"]:
            if "reference_image_id" in record:
                records.setdefault(record["reference_image_id"], record)
        return records


def layout_page(real: dict, originals: ImageStore, sets: list[DrawnSet], *, seed: int = 0) -> Figure:
    """A row for each layout: the real image with its labels, then each engine's with its detections.

    Dashed boxes were asked for, others are detections with a score of at least `LEAST_SCORE`.

    Args:
        real: annotations of the real training images.
        seed: of the choice of layouts, among those that all engines drew.
    """
    names = {it["id"]: as_text(it["name"]) for it in real["categories"]}
    labels = index_annotations(real)
    by_layout = [drawn.by_layout() for drawn in sets]
    common = set.intersection(*(set(it) for it in by_layout)) & set(labels)
    chosen = sorted(common, key=lambda image: seed_for(seed, "page", image))[:LAYOUTS]
    records = {image["id"]: image for image in real["images"]}
    with style():
        side = PAGE_WIDTH / (1 + len(sets))
        figure = Figure(figsize=(PAGE_WIDTH, side * max(len(chosen), 1) + 0.3), layout="constrained")
        grid = figure.subplots(max(len(chosen), 1), 1 + len(sets), squeeze=False)
        for row, reference in enumerate(chosen):
            record = records[reference]
            members = labels[reference]
            _show(grid[row, 0], originals.image(image_name(record)), members, [], names)
            for column, (drawn, known) in enumerate(zip(sets, by_layout, strict=True), start=1):
                image = known[reference]
                asked = [it for it in drawn.data["annotations"] if it["image_id"] == image["id"]]
                rows = [it for it in drawn.found.get(str(image["id"]), []) if it[1] >= LEAST_SCORE]
                boxes = [{"category_id": int(it[0]), "bbox": it[2:]} for it in rows]
                _show(grid[row, column], drawn.images.image(image_name(image)), asked, boxes, names)
        for axes, title in zip(grid[0], ["real", *(drawn.name for drawn in sets)], strict=True):
            axes.set_title(title)
    return figure


def _show(axes, image: np.ndarray, asked: list[dict], found: list[dict], names: dict[int, str]) -> None:
    """An image with boxes asked for (dashed) and found."""
    show_image(axes, image)
    size = image.shape[:2]
    plain = [{"bbox": it["bbox"], "category_id": it["category_id"]} for it in asked]

    def label(place: int, it: dict) -> str:
        return names[it["category_id"]]

    draw_instances(axes, plain, size, linestyle=":", colours=("#000000",), label=None if found else label)
    draw_instances(axes, found, size, label=label, colours=PALETTE[1:4], fontsize=4)
