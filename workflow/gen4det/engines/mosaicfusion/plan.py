"""What to draw: which categories meet on which canvas, cut how, from which noise (MosaicFusion, section 3.2).

Each main category is drawn `images_per_category` times, each time with random other categories around it.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.data.annotations import category_counts, frequency_groups
from gen4det.diffusion.sources import latent_cell, load_tokenizer
from gen4det.engines import base
from gen4det.engines.mosaicfusion.geometry import Layout, draw_layout
from gen4det.engines.mosaicfusion.prompts import category_prompt
from gen4det.engines.mosaicfusion.settings import Settings, rarest_number


class Planner(base.Planner):
    """Which categories meet on which canvas."""

    settings: Settings

    def plan(self) -> list[dict]:
        """See `plan_manifest`."""
        source = self.settings.source(self.foundation)
        tokenizer, cell = load_tokenizer(source), latent_cell(source)
        return plan_manifest(self.dataset.train.load(), self.settings, self.run_seed, tokenizer, cell)


@dataclass(frozen=True)
class Canvas:
    """One image to draw; `categories` are ids, one for each region of the layout."""

    main: int
    number: int
    """Which image of its main category, from 0."""
    seed: int
    categories: tuple[int, ...]
    layout: Layout


def plan_manifest(
    data: dict, settings: Settings, run_seed: int, tokenizer: PreTrainedTokenizerBase, cell: int
) -> list[dict]:
    """Manifest of the whole synthetic set.

    Args:
        data: annotations of the training split; categories are taken in their order.
        cell: side of a latent cell in pixels.

    Returns:
        Rows {"index", "batch", "seed", "main_category_id", "number", "height", "width", "regions": [{
        "category_id", "prompt", "tokens": positions in the prompt, "box": [x, y, width, height] of what is
        diffused and labelled, "core": the region's share of the canvas without overlap}]}, all in pixels.
        Canvases that are cut alike stand together, in batches of `batch_size`.

    Raises:
        InputError: no category in the groups asked for, sizes that do not fit the model, or a name that does
            not fit into a prompt.
    """
    categories = {category["id"]: category for category in data["categories"]}
    groups = frequency_groups(data)
    main = [key for key in categories if groups[key] in settings.main_groups]
    if settings.main_rarest is not None:
        main = rarest(data, settings.main_rarest)
    pool = [key for key in categories if groups[key] in settings.partner_groups]
    for name, found in (("main_groups", main), ("partner_groups", pool)):
        if not found:
            letters = ", ".join(getattr(settings, name))
            there = ", ".join(sorted(set(groups.values())))
            raise InputError(
                f"mosaicfusion: {name}: no category of the data set is in a group of: {letters}; set "
                f"{name} to groups that it has: {there}"
            )
    canvases = draw_canvases(main, pool, settings, run_seed, cell)
    prompts = {}
    rows = []
    for batch, members in enumerate(batches_of_a_cut(canvases, settings.batch_size)):
        for canvas in members:
            regions = []
            for key, box, core in zip(
                canvas.categories, canvas.layout.regions, canvas.layout.cores, strict=True
            ):
                if key not in prompts:
                    prompts[key] = category_prompt(categories[key], settings, tokenizer)
                regions.append(
                    {
                        "category_id": key,
                        "prompt": prompts[key].text,
                        "tokens": list(prompts[key].tokens),
                        "box": list(box),
                        "core": list(core),
                    }
                )
            rows.append(
                {
                    "index": len(rows),
                    "batch": batch,
                    "seed": canvas.seed,
                    "main_category_id": canvas.main,
                    "number": canvas.number,
                    "height": canvas.layout.height,
                    "width": canvas.layout.width,
                    "regions": regions,
                }
            )
    return rows


def rarest(data: dict, amount: int | float) -> list[int]:
    """The categories with the fewest training images, in the order of the file.

    Images decide, then objects, then the order of the file.

    Args:
        amount: how many, or below 1 the share of all, rounded up.
    """
    counts = category_counts(data)
    number = rarest_number(amount, len(counts))
    chosen = set(sorted(counts, key=counts.__getitem__)[:number])
    return [key for key in counts if key in chosen]


def draw_canvases(
    main: Sequence[int], pool: Sequence[int], settings: Settings, run_seed: int, cell: int
) -> Iterator[Canvas]:
    """Draw the canvases of all main categories, category by category."""
    if settings.random_stream == "official":
        return _official_stream(main, pool, settings, run_seed, cell)
    return _stream_per_image(main, pool, settings, run_seed, cell)


def _stream_per_image(main, pool, settings, run_seed, cell) -> Iterator[Canvas]:
    """Every canvas has streams of its own: it does not depend on which others are drawn, or how many."""
    for key in main:
        for number in range(settings.images_per_category):
            image = (settings.method, key, number)
            shared = (settings.method, key, number // settings.canvases_per_geometry)
            draw = random.Random(seed_for(run_seed, *shared, "layout"))
            objects = draw.choice(settings.objects)
            layout = draw_layout(draw, objects, settings, cell)
            draw = random.Random(seed_for(run_seed, *image, "partners"))
            categories = _mix(draw, key, pool, objects)
            yield Canvas(key, number, seed_for(run_seed, *image, "noise"), categories, layout)


def _official_stream(main, pool, settings, run_seed, cell) -> Iterator[Canvas]:
    """The released code's draws, in its order, from one stream seeded with the run's seed.

    Noise seeds are 0, 1, 2, ... for every category anew, so that all categories share their initial noise.
    """
    draw = random.Random(run_seed)
    for key in main:
        for number in range(settings.images_per_category):
            objects = draw.choice(settings.objects)
            categories = _mix(draw, key, pool, objects)
            yield Canvas(key, number, number, categories, draw_layout(draw, objects, settings, cell))


def _mix(draw: random.Random, main: int, pool: Sequence[int], objects: int) -> tuple[int, ...]:
    """The main category and its partners, drawn with replacement, in random order."""
    categories = [main, *(draw.choice(pool) for _ in range(objects - 1))]
    draw.shuffle(categories)
    return tuple(categories)


def batches_of_a_cut(canvases: Iterator[Canvas], size: int) -> Iterator[list[Canvas]]:
    """Bring canvases with one layout together, layouts in order of appearance, at most `size` at a time."""
    by_layout: dict[Layout, list[Canvas]] = {}
    for canvas in canvases:
        by_layout.setdefault(canvas.layout, []).append(canvas)
    for members in by_layout.values():
        for start in range(0, len(members), size):
            yield members[start : start + size]
