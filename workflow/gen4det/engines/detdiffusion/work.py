"""What drawing with this engine costs, counted from its settings."""

from gen4det.engines.detdiffusion.settings import Settings
from gen4det.engines.work import DataSize, Drawing, Fitting, model_calls


def drawing(settings: Settings, size: DataSize) -> Drawing:
    """Every layout is drawn in one pass, whatever the number of its boxes.

    How many images have `min_objects` to `max_objects` large objects is not known from a data set's size;
    that of COCO's 118,287 training images are 47,429 with 210,893 objects, two in five.
    """
    layouts = round(size.train_images * LAYOUTS)
    drawn = min(settings.references or layouts, layouts)
    pixels = settings.size.height * settings.size.width
    return Drawing(
        images=drawn * settings.images_per_layout,
        evaluations=2 * model_calls(settings.denoising),
        evaluated_pixels=pixels,
        encoded_pixels=0,
        decoded_pixels=pixels,
        stored_pixels=size.pixels,
        labels=OBJECTS,
        masks=False,
        precision=settings.denoising.precision,
    )


LAYOUTS, OBJECTS = 47_429 / 118_287, 210_893 / 47_429
"""Share of COCO's training images that pass the filter, and objects of one of them (as published)."""

PIPELINE_BYTES = 4.5e9
"""Stable Diffusion 1.5 in float32 with 65,538 more words of 768 numbers."""
ATTRIBUTE_BYTES = 16
"""Of one object in the table of attributes."""


def fitting(settings: Settings, step: str, size: DataSize) -> Fitting:
    """A fit of the generator sees each image forwards and backwards; checkpointing goes forwards twice."""
    if step == "attributes":
        stored = ATTRIBUTE_BYTES * size.boxes if settings.detector else 0
        return Fitting(size.train_images, 0, 0, 0, "float32", stored)
    generator, pixels = settings.generator, settings.size.height * settings.size.width
    return Fitting(
        images=generator.steps * generator.batch,
        evaluations=4 if generator.checkpointing else 3,
        evaluated_pixels=pixels,
        encoded_pixels=pixels,
        precision=generator.precision,
        stored=PIPELINE_BYTES,
    )
