"""Settings of the cost estimate: what one GPU, or one core, does in an hour, what files take. Files
config/costs/*.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from gen4det.core.settings import Settings

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Arithmetic(Settings):
    """How fast a device computes in one precision."""

    peak: Positive
    """Tera floating point operations per second, as its maker states (dense)."""
    share: Fraction
    """Share of the peak that a U-Net reaches."""


class DeviceCosts(Settings):
    """One GPU, or one core of a processor."""

    name: str
    """Its name, for the heading."""
    arithmetic: dict[Literal["float32", "tf32", "bfloat16", "float16"], Arithmetic]
    """By the precision of `denoising`; float32 also serves autoencoder and CLIP, and must be given."""
    trained_images: dict[str, Positive]
    """Training images of a detector per second, by its mmengine config file."""
    predicted_images: dict[str, Positive]
    """Images per second that it detects objects in, likewise."""
    job_start: Annotated[float, Field(ge=0)]
    """Seconds until a job has loaded its model; it waits that long."""


class ModelCosts(Settings):
    """Floating point operations in units of 10^9; a multiplication with its addition counts as two."""

    unet: dict[str, Positive]
    """One evaluation for one image of 512 x 512 px, by the name of the model's folder."""
    encode: Positive
    """Autoencoder, one image of 512 x 512 px to its latents."""
    decode: Positive
    """Back again."""
    clip: Positive
    """CLIP's embedding of one image."""


class FileCosts(Settings):
    """Bytes."""

    downloaded: dict[str, Positive]
    """Of a pretrained model, by its name in the registry of downloads."""
    png_pixel: Positive
    """Of one pixel of a generated image that is stored exactly."""
    jpg_pixel: Positive
    """Of one that is stored as JPEG of quality 95."""
    mask_label: Positive
    """Of one label with a mask in an annotation file."""
    box_label: Positive
    """Of one label without."""
    manifest_row: Positive
    """Of what is planned for one image."""
    score: Positive
    """Of the aesthetic score of one image."""
    detection: Positive
    """Of one detection of a filter's detector."""
    prediction: Positive
    """Of one detection on a validation image, with its mask."""
    weights: dict[str, Positive]
    """Of one trained detector, by its mmengine config file."""
    features: dict[str, Positive]
    """Of what a frozen model finds in a pixel of an image, in float16, by the name of the model's folder."""
    iteration: Positive
    """Of what is logged of one iteration of a training."""
    metrics: Positive
    """Of one evaluation."""
    page: Positive
    """Of one table, figure or gallery."""


class Costs(Settings):
    """A file config/costs/<gpu>.yaml."""

    gpu: DeviceCosts
    """The machine."""
    core: DeviceCosts | None = None
    """One core, for scales of which no job asks for a GPU; null: their hours are not estimated."""
    models: ModelCosts
    """The models."""
    small_models: ModelCosts | None = None
    """Those of such scales."""
    files: FileCosts
    """What lies on the disk."""
