"""Which layouts of the training split are drawn, and the prompts that ask for them. No torch."""

import logging
from dataclasses import replace

import numpy as np

from gen4det.core.provenance import seed_for
from gen4det.data.annotations import category_counts
from gen4det.data.model_settings import ModelSource
from gen4det.diffusion.sources import latent_cell, load_tokenizer
from gen4det.engines import base
from gen4det.engines.detdiffusion.attributes import load_attributes
from gen4det.engines.detdiffusion.layouts import Layout, mirror, read_layouts, shift
from gen4det.engines.detdiffusion.settings import Settings
from gen4det.engines.detdiffusion.sizes import latent_cells
from gen4det.engines.detdiffusion.words import fitting, require_grid

log = logging.getLogger(__name__)


class Planner(base.Planner):
    """Takes layouts of the training split as they are, or moved; attributes by the strategy."""

    settings: Settings

    def plan(self) -> list[dict]:
        """Rows {"index", "batch", "seed", "reference_image_id": the image whose layout it is, "number": which
        image of this layout, from 0, "height", "width": in pixels, of the real image, "mirrored", "shift":
        [x, y] in pixels, "prompt", "objects": [{"category_id", "bbox", "attribute"}]}.

        Seeds, moves and the order of objects do not depend on the strategy.

        Raises:
            InputError: attributes of other settings, a generator with another grid, a size that does not
                fit it.
        """
        settings, split = self.settings, self.dataset.train
        attributes = load_attributes(
            self.inputs.models["attributes"], settings.detector, settings.attributes, training_hash=split.hash
        )
        source = ModelSource(path=str(self.inputs.models["generator"]))
        tokenizer = load_tokenizer(source)
        require_grid(tokenizer, settings.words, where=source.path)
        latent_cells((settings.size.height, settings.size.width), latent_cell(source))
        annotations = split.load()
        layouts = read_layouts(annotations, settings.layouts, attributes)
        chosen = choose(layouts, annotations, settings, self.run_seed)
        rows, lost = [], 0
        for number in range(settings.images_per_layout):
            for layout in chosen:
                drawn, facts = vary(layout, settings, self.run_seed, number)
                drawn = with_strategy(drawn, settings.strategy)
                prompt, count = fitting(drawn, settings.words, tokenizer)
                lost += len(drawn.objects) - count
                objects = [
                    {"category_id": it.category_id, "bbox": list(it.box), "attribute": it.attribute}
                    for it in drawn.objects[:count]
                ]
                rows.append({
                    "index": len(rows),
                    "batch": len(rows) // settings.batch_size,
                    "reference_image_id": layout.image_id,
                    "number": number,
                    "height": layout.height,
                    "width": layout.width,
                    **facts,
                    "prompt": prompt,
                    "objects": objects,
                })  # fmt: skip
        if lost:
            log.warning("detdiffusion: %d objects do not fit into prompts and are not drawn", lost)
        return rows


def choose(layouts: list[Layout], annotations: dict, settings: Settings, run_seed: int) -> list[Layout]:
    """The first `references` layouts in the order that the settings ask for."""
    holders = {category: images for category, (images, _) in category_counts(annotations).items()}

    def rank(layout: Layout) -> tuple[int, int, int]:
        rarest = min(holders[it.category_id] for it in layout.objects)
        draw = seed_for(run_seed, settings.method, layout.image_id, "reference")
        return rarest if settings.reference_order == "rare-first" else 0, draw, layout.image_id

    return sorted(layouts, key=rank)[: settings.references]


def vary(layout: Layout, settings: Settings, run_seed: int, number: int) -> tuple[Layout, dict]:
    """A layout as one image of it is drawn: mirrored and moved by chance, its objects in a random order.

    Returns:
        The layout, and {"seed", "mirrored", "shift"} of its row.
    """
    seed = seed_for(run_seed, settings.method, layout.image_id, number)
    rng = np.random.default_rng(seed)
    mirrored = bool(rng.random() < settings.mirrored)
    right, down = (int(side) for side in rng.integers(-settings.max_shift, settings.max_shift + 1, 2))
    order = rng.permutation(len(layout.objects))
    varied = replace(layout, objects=tuple(layout.objects[place] for place in order))
    if mirrored:
        varied = mirror(varied)
    moved = shift(varied, right, down, settings.layouts, settings.least_visible) if right or down else varied
    kept = [right, down] if moved is not varied else [0, 0]
    return moved, {"seed": seed, "mirrored": mirrored, "shift": kept}


def with_strategy(layout: Layout, strategy: str) -> Layout:
    """Attributes as they are, or all easy, or all hard; objects without one keep none."""
    if strategy == "origin":
        return layout
    objects = (replace(it, attribute=it.attribute and strategy) for it in layout.objects)
    return replace(layout, objects=tuple(objects))
