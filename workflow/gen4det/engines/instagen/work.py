"""What drawing with this engine costs, counted from its settings."""

from gen4det.engines.instagen.settings import Settings
from gen4det.engines.work import DataSize, Drawing, model_calls


def drawing(settings: Settings, size: DataSize) -> Drawing:
    """Images of base and of novel categories alike. Shares of both are COCO's (48 and 17 of 80), since the
    size of a data set does not say them."""
    categories = sum(size.categories.values())
    base, novel = (categories, 0) if settings.vocabulary == "closed" else (48 / 80, 17 / 80)
    if settings.vocabulary == "open":
        base, novel = base * categories, novel * categories
    asked = settings.images
    images = round(base * asked.base_per_category + novel * asked.novel_per_category)
    pixels = settings.size**2
    return Drawing(
        images=images,
        evaluations=2 * model_calls(asked.denoising),
        evaluated_pixels=pixels,
        encoded_pixels=0,
        decoded_pixels=pixels,
        stored_pixels=pixels,
        labels=1 + asked.pairs,
        masks=False,
        precision=asked.denoising.precision,
    )
