"""What the steps of this engine cost, counted from its settings."""

from gen4det.engines.instagen.settings import Settings
from gen4det.engines.work import DataSize, Drawing, Fitting, model_calls

BASE, NOVEL = 48 / 80, 17 / 80
"""Shares of the categories; COCO's, since the size of a data set does not say them."""
SHOWING = 107_761 / 118_287
"""Share of the training images that show a base category; COCO's (as published)."""
HEAD = 1.0
"""Work of the head, forwards and backwards, for an image in evaluations of the U-Net [A]: 45 million
parameters, most of which see 5,440 tokens."""
PIPELINE_BYTES = 4.3e9
"""Stable Diffusion 1.4 in float32."""
HEAD_BYTES = 2 * 4 * 45e6
"""Student and teacher."""


def amounts(settings: Settings, size: DataSize) -> tuple[float, float]:
    """Categories that are drawn for, base and novel ones."""
    categories = sum(size.categories.values())
    return (categories, 0) if settings.vocabulary == "closed" else (BASE * categories, NOVEL * categories)


def drawing(settings: Settings, size: DataSize) -> Drawing:
    """Images of base and of novel categories alike."""
    base, novel = amounts(settings, size)
    asked, pixels = settings.images, settings.size**2
    return Drawing(
        images=round(base * asked.base_per_category + novel * asked.novel_per_category),
        evaluations=2 * model_calls(asked.denoising),
        evaluated_pixels=pixels,
        encoded_pixels=0,
        decoded_pixels=pixels,
        stored_pixels=pixels,
        labels=1 + asked.pairs,
        masks=False,
        precision=asked.denoising.precision,
    )


def fitting(settings: Settings, step: str, size: DataSize) -> Fitting:
    """The generator sees crops forwards and backwards; the head one pass, with and without prompt, of each
    image. All images of base categories are counted, also those in which the detector finds nothing."""
    pixels = settings.size**2
    if step == "generator":
        chosen = settings.generator
        return Fitting(
            images=round(chosen.epochs * SHOWING * size.train_images),
            evaluations=4 if chosen.checkpointing else 3,
            evaluated_pixels=pixels,
            encoded_pixels=pixels,
            precision=chosen.precision,
            stored=PIPELINE_BYTES,
        )
    base, novel = amounts(settings, size)
    head, asked = settings.head, settings.images
    begins = head.epochs if head.self_training_from is None else min(head.self_training_from, head.epochs)
    of_novel = min(asked.novel_per_category, head.novel_per_category or asked.novel_per_category)
    seen = head.epochs * base * asked.base_per_category + (head.epochs - begins) * novel * of_novel
    return Fitting(round(seen), 2 + HEAD, pixels, 0, settings.features.precision, HEAD_BYTES)


def labelling(settings: Settings, size: DataSize) -> Fitting:
    """One pass of each image of a novel category that is used, and the head without its backward pass; none
    where the detector labels."""
    drawn, used = settings.images.novel_per_category, settings.labels.novel_per_category
    asked = 0 if settings.labels.novel_by == "detector" else min(drawn, drawn if used is None else used)
    images = amounts(settings, size)[1] * asked
    return Fitting(round(images), 2 + HEAD / 3, settings.size**2, 0, settings.features.precision, 0)
