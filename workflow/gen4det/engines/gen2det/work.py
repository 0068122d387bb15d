"""What drawing with this engine costs, counted from its settings."""

from gen4det.engines.gen2det.settings import Settings
from gen4det.engines.work import DataSize, Drawing, model_calls


def drawing(settings: Settings, size: DataSize) -> Drawing:
    """Every reference is painted in one pass, whatever the number of its boxes."""
    references = min(settings.references or size.train_images, size.train_images)
    painted = settings.size.height * settings.size.width
    return Drawing(
        images=references * settings.generations_per_reference,
        evaluations=2 * model_calls(settings.denoising),
        evaluated_pixels=painted,
        encoded_pixels=painted,
        decoded_pixels=painted,
        stored_pixels=size.pixels,
        labels=size.boxes / size.train_images,
        masks=False,
        precision=settings.denoising.precision,
    )
