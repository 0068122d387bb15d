"""What drawing with this engine costs, counted from its settings."""

from gen4det.engines.mosaicfusion.settings import Settings, rarest_number
from gen4det.engines.work import DataSize, Drawing, model_calls


def drawing(settings: Settings, size: DataSize) -> Drawing:
    """Each region of a canvas is denoised at every step; regions reach half the overlap beyond a cut."""
    categories = sum(size.categories[group] for group in settings.main_groups)
    if settings.main_rarest is not None:
        categories = rarest_number(settings.main_rarest, sum(size.categories.values()))
    shapes = [_canvas(settings, objects) for objects in settings.objects]
    regions = sum(objects for objects, _, _ in shapes) / len(shapes)
    diffused = sum(objects * region for objects, region, _ in shapes) / len(shapes)
    canvas = sum(area for _, _, area in shapes) / len(shapes)
    return Drawing(
        images=categories * settings.images_per_category,
        evaluations=2 * regions * model_calls(settings.denoising),
        evaluated_pixels=diffused / regions,
        encoded_pixels=0,
        decoded_pixels=canvas,
        stored_pixels=canvas,
        labels=regions,
        masks=True,
        precision=settings.denoising.precision,
    )


def _canvas(settings: Settings, objects: int) -> tuple[int, float, float]:
    """(objects, mean area of a region, area of the canvas)."""
    height, width = settings.region_height, settings.region_width
    taller, wider = height + settings.overlap_height / 2, width + settings.overlap_width / 2
    region = {1: height * width, 2: (taller * width + height * wider) / 2, 4: taller * wider}[objects]
    return objects, region, objects * height * width
