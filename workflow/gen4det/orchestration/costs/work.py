"""What engines compute and store, from their settings alone: one function for each method.

An engine without one is counted in jobs, and its hours are called unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gen4det.diffusion.settings import DenoisingSettings
from gen4det.engines.gen2det.settings import Settings as Gen2Det
from gen4det.engines.mosaicfusion.settings import Settings as MosaicFusion
from gen4det.engines.settings import EngineSettings
from gen4det.orchestration.costs.settings import DataSize


@dataclass(frozen=True)
class Drawing:
    """One synthetic set."""

    images: int
    evaluations: float
    """U-Net evaluations for one image, with and without prompt counted apart."""
    evaluated_pixels: float
    """Mean area in pixels that the U-Net sees in one of them."""
    encoded_pixels: float
    """Area that the autoencoder encodes for one image."""
    decoded_pixels: float
    """Area that it decodes."""
    stored_pixels: float
    """Area of a stored image."""
    labels: float
    """Labels of an image."""
    masks: bool
    """Whether labels are masks."""
    precision: str


def drawing(settings: EngineSettings, size: DataSize) -> Drawing | None:
    """Work of a variant on a data set; None where the method has no function here."""
    count = METHODS.get(settings.method)
    return count(settings, size) if count else None


def model_calls(denoising: DenoisingSettings) -> int:
    """Noise predictions for one latent. PNDM, which Stable Diffusion brings, makes one more than steps."""
    return denoising.steps + (denoising.scheduler in ("pndm", "checkpoint"))


def mosaicfusion(settings: MosaicFusion, size: DataSize) -> Drawing:
    """Each region of a canvas is denoised at every step; regions reach half the overlap beyond a cut."""
    categories = sum(size.categories[group] for group in settings.main_groups)
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


def _canvas(settings: MosaicFusion, objects: int) -> tuple[int, float, float]:
    """(objects, mean area of a region, area of the canvas)."""
    height, width = settings.region_height, settings.region_width
    taller, wider = height + settings.overlap_height / 2, width + settings.overlap_width / 2
    region = {1: height * width, 2: (taller * width + height * wider) / 2, 4: taller * wider}[objects]
    return objects, region, objects * height * width


def gen2det(settings: Gen2Det, size: DataSize) -> Drawing:
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


METHODS: dict[str, Callable[..., Drawing]] = {"mosaicfusion": mosaicfusion, "gen2det": gen2det}
