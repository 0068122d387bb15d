"""What drawing with this engine costs, counted from its settings."""

import math

from gen4det.engines.diffusionengine.settings import Settings
from gen4det.engines.work import DataSize, Drawing

STORED_SHARE = 0.1
"""Share of an adapter's boxes that is stored, as we assume."""


def drawing(settings: Settings, data: DataSize) -> Drawing:
    """Every reference is drawn in one pass of half the least and the greatest number of steps on average.

    Sizes are those of a reference of three to four, the proportions of most photographs.
    """
    references = min(settings.references or data.train_images, data.train_images)
    size = settings.size
    short, long = size.short, min(size.short * 4 / 3, size.long or math.inf)
    if size.crop is not None:
        short, long = (sum(min(end, side) for end in size.crop) / 2 for side in (short, long))
    drawn = short * long
    seen_again = int(settings.control)
    return Drawing(
        images=references * settings.generations_per_reference,
        evaluations=sum(settings.sampling.step_range) + seen_again,  # twice the mean: with and without prompt
        evaluated_pixels=drawn,
        encoded_pixels=drawn * (1 + seen_again),
        decoded_pixels=drawn,
        stored_pixels=drawn,
        labels=settings.max_per_image * STORED_SHARE,
        masks=False,
        precision=settings.sampling.precision,
    )
