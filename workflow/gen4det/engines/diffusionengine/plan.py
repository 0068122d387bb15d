"""What to draw anew: which real images, how often, from how much noise, under which prompt."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np

from gen4det.core.provenance import seed_for
from gen4det.data.annotations import index_annotations, is_object
from gen4det.data.images import image_name
from gen4det.data.references import require_images
from gen4det.diffusion.sources import latent_cell
from gen4det.diffusion.words import spoken_name
from gen4det.engines import base
from gen4det.engines.diffusionengine.prompts import prompt_of
from gen4det.engines.diffusionengine.settings import Settings
from gen4det.engines.diffusionengine.sizes import frame_of


class Planner(base.Planner):
    """Which real images are drawn anew, and how. Reads the training split only; of labels the names alone."""

    settings: Settings

    def plan(self) -> list[dict]:
        """See `plan_manifest`; the images must be there."""
        cell = latent_cell(self.settings.model or self.foundation.diffusion)
        train = self.dataset.train
        captions = train.captions() if self.settings.prompt.captions else {}
        rows = plan_manifest(train.load(), captions, self.settings, self.run_seed, cell)
        require_images(train.images, rows, who="diffusionengine draws it anew")
        return rows


def plan_manifest(
    data: dict, captions: dict[int, list[str]], settings: Settings, run_seed: int, cell: int
) -> list[dict]:
    """Manifest of the whole synthetic set; needs no image.

    The first images of all references stand before the second ones, and so on; among those of one number
    equal sizes and numbers of steps stand together. A larger number of generations leaves every row and every
    batch before it as it was.

    Args:
        data: annotations of the training split.
        captions: image id -> captions; may lack images.
        cell: side of a latent cell in pixels.

    Returns:
        Rows {"index", "batch", "seed", "reference_image_id", "number": which image of its reference, from 0,
        "file_name" of the reference, "height", "width": its size, "resized", "crop": see `sizes.Frame`,
        "steps" that are made, "eta", "guidance", "prompt", "negative_prompt"}.
    """
    names = {category["id"]: spoken_name(category) for category in data["categories"]}
    shown = {
        image: list(dict.fromkeys(names[a["category_id"]] for a in annotations if is_object(a)))
        for image, annotations in index_annotations(data).items()
    }
    references = choose_references(data, settings, run_seed)
    rows: list[dict] = []
    batches = 0
    for number in range(settings.generations_per_reference):
        drawn = [
            plan_row(
                image, number, captions.get(image["id"], ()), shown[image["id"]], settings, run_seed, cell
            )
            for image in references
        ]
        for batch in batched(drawn, settings.batch_size):
            rows += [{"index": len(rows) + place, "batch": batches, **row} for place, row in enumerate(batch)]
            batches += 1
    return rows


def choose_references(data: dict, settings: Settings, run_seed: int) -> list[dict]:
    """Records of the training images that are drawn anew; a smaller number is a part of every larger one."""

    def rank(image: dict) -> int:
        return seed_for(run_seed, settings.method, image["id"], "reference")

    return sorted(data["images"], key=rank)[: settings.references]


def plan_row(
    image: dict,
    number: int,
    captions: Iterable[str],
    names: list[str],
    settings: Settings,
    run_seed: int,
    cell: int,
) -> dict:
    """One row of the manifest but for its place in it; depends on the reference and its number alone."""
    rng = np.random.default_rng(seed_for(run_seed, settings.method, image["id"], number, "plan"))
    sampling = settings.sampling
    least, most = sampling.step_range
    frame = frame_of(image["height"], image["width"], settings.size, cell, rng)
    return {
        "seed": seed_for(run_seed, settings.method, image["id"], number),
        "reference_image_id": image["id"],
        "number": number,
        "file_name": image_name(image),
        "height": image["height"],
        "width": image["width"],
        "resized": list(frame.resized),
        "crop": list(frame.crop),
        "steps": int(rng.integers(least, most + 1)),
        "eta": sampling.eta[rng.integers(len(sampling.eta))],
        "guidance": float(rng.uniform(*sampling.guidance)),
        "prompt": prompt_of(list(captions), names, settings.prompt, rng),
        "negative_prompt": settings.prompt.negative,
    }


def batched(rows: list[dict], size: int) -> Iterator[list[dict]]:
    """Rows in groups of equal image size and number of steps, `size` of them at most."""

    def alike(row: dict) -> tuple:
        return row["crop"][2:], row["steps"]

    for _, group in groupby(sorted(rows, key=alike), key=alike):
        members = list(group)
        yield from (members[start : start + size] for start in range(0, len(members), size))
