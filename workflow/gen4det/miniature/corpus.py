"""The captioned corpus the foundation models learn from.

Like the pictures Stable Diffusion learned from, it shows every word, the ones that are rare in the
detection set included. Its seeds are a stream of their own: no corpus image is a detection image.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, seed_for
from gen4det.miniature.categories import CATEGORIES, Category
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.renderer import PORTRAIT, Scene, Variation, render_scene

SINGLE_SHARE, DRAWING_SHARE = 0.88, 0.04


@dataclass(frozen=True)
class CorpusItem:
    """A scene, its caption and the names of its objects."""

    scene: Scene
    caption: str


def corpus_item(
    settings: FoundationTraining,
    index: int,
    stream: str = "corpus",
    shares: np.ndarray | None = None,
) -> CorpusItem:
    """Draw one captioned image.

    Args:
        stream: name of the random stream; "corpus" and "diffusion" train, any other is held out.
        shares: probability of each category, see `category_shares`; None: all alike.
    """
    rng = np.random.default_rng(seed_for(settings.seed, stream, index))
    size = settings.image_size
    single = rng.random() < SINGLE_SHARE
    style = "drawing" if rng.random() < DRAWING_SHARE else "photo"
    picks = rng.choice(len(CATEGORIES), 1 if single else 2, replace=False, p=shares)
    limits = (0.6 * size, 0.88 * size) if single else (0.36 * size, 0.55 * size)
    variation = PORTRAIT if single else Variation(any_colour=PORTRAIT.any_colour)
    seed, shown = int(rng.integers(2**62)), [CATEGORIES[i] for i in picks]
    scene = render_scene(seed, shown, size, limits, style, variation)
    return CorpusItem(scene, _caption(rng, scene))


def category_shares(weights: dict[str, float]) -> np.ndarray | None:
    """Probability of each category, from weights by name; those that are not named weigh 1. None if none is.

    Raises:
        InputError: a name that is no category.
    """
    names = [category.name for category in CATEGORIES]
    if unknown := sorted(weights.keys() - set(names)):
        raise InputError(f"category_weights: no category {unknown[0]!r}; categories: {', '.join(names)}")
    if not weights:
        return None
    found = np.array([weights.get(name, 1.0) for name in names])
    return found / found.sum()


def _caption(rng: np.random.Generator, scene: Scene) -> str:
    names = [placed.category.name for placed in scene.objects]
    if scene.style == "drawing":
        return "a drawing of " + " and ".join(f"a {name}" for name in names)
    if len(names) == 1:
        category: Category = scene.objects[0].category
        name, colour = category.name, scene.objects[0].colour
        templates = (
            (f"a photo of a single {name}, {category.definition}", 0.4),
            (f"a photo of a single {name}", 0.15),
            (f"a photograph of a {name}", 0.1),
            (f"a photo of a {colour} {name}", 0.15),
            (f"An image with {name}", 0.1),
            (name, 0.1),
        )
    else:
        one, two = names if rng.random() < 0.5 else names[::-1]
        templates = (
            (f"a photograph of {one} and {two}", 0.4),
            (f"{one}, {two}", 0.25),
            (f"a realistic photo, with a {one}, a {two} in the photo", 0.15),
            (f"An image with {one} {two}", 0.2),
        )
    texts, weights = zip(*templates, strict=True)
    return texts[rng.choice(len(texts), p=np.array(weights) / sum(weights))]


def iterate_corpus(settings: FoundationTraining, stream: str, count: int) -> Iterator[CorpusItem]:
    """Items 0 .. count-1 of a stream, with a progress bar."""
    for index in tqdm(range(count), desc=f"render {stream}", unit="image", mininterval=2):
        yield corpus_item(settings, index, stream)


def make(job: FoundationJob) -> dict:
    """Render the corpus."""
    build_corpus(job.settings, job.output)
    return {}


def build_corpus(settings: FoundationTraining, output: Path) -> None:
    """Render the training corpus.

    Writes to the folder `output`: `images.npy` uint8 (N, S, S, 3); `captions.json`, N strings;
    `objects.json`, N lists of [category id, x, y, w, h] in pixels.
    """
    count, size = settings.corpus_images, settings.image_size
    with atomic_write(output) as folder:
        folder.mkdir()
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
        captions, objects = [], []
        for index, item in enumerate(iterate_corpus(settings, "corpus", count)):
            images[index] = item.scene.image
            captions.append(item.caption)
            objects.append([[placed.category.id, *placed.box] for placed in item.scene.objects])
        images.flush()
        (folder / "captions.json").write_text(json.dumps(captions))
        (folder / "objects.json").write_text(json.dumps(objects))
