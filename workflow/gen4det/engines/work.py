"""The work of an engine's steps, counted from its settings, for estimates of what a run costs.

A method may have a module `work.py` with `drawing(settings, size) -> Drawing` and, if it learns,
`fitting(settings, step, size) -> Fitting`. Without one its jobs are counted, and their hours called unknown.
Nothing here imports torch.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gen4det.core.settings import Settings
from gen4det.diffusion.settings import DenoisingSettings
from gen4det.engines.base import engine_module
from gen4det.engines.settings import EngineSettings

Positive = Annotated[float, Field(gt=0)]


class DataSize(Settings):
    """How large a data set is: an entry of resources/data_sizes.yaml, or counted from annotations."""

    train_images: Annotated[int, Field(ge=0)]
    """Training images."""
    val_images: Annotated[int, Field(ge=0)]
    """Validation images."""
    categories: dict[Literal["r", "c", "f"], Annotated[int, Field(ge=0)]]
    """Categories by LVIS frequency group."""
    boxes: Annotated[int, Field(ge=0)]
    """Labels of the training images."""
    pixels: Annotated[float, Field(ge=0)]
    """Mean area of an image."""
    annotation_bytes: Annotated[int, Field(ge=0)]
    """Size of the annotation files of both splits."""


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
    """Work of a variant on a data set; None where the method does not count it."""
    module = engine_module(settings.method, "work")
    if importlib.util.find_spec(module) is None:
        return None
    return importlib.import_module(module).drawing(settings, size)


@dataclass(frozen=True)
class Fitting:
    """One fit."""

    images: int
    """Training images that are seen, each time counted."""
    evaluations: float
    """U-Net evaluations for one of them; a backward pass counts as two."""
    evaluated_pixels: float
    """Mean area in pixels that the U-Net sees in one of them."""
    encoded_pixels: float
    """Area that the autoencoder encodes for one image."""
    precision: str
    stored: float
    """Bytes of the model that is kept."""


def fitting(settings: EngineSettings, step: str, size: DataSize) -> Fitting | None:
    """Work of a fit step of a variant on a data set; None where the method does not count it."""
    module = engine_module(settings.method, "work")
    count = importlib.util.find_spec(module) and getattr(importlib.import_module(module), "fitting", None)
    return count(settings, step, size) if count else None


def labelling(settings: EngineSettings, size: DataSize) -> Fitting | None:
    """Work of the label step of a variant, which keeps labels alone; None where it is not counted."""
    module = engine_module(settings.method, "work")
    count = importlib.util.find_spec(module) and getattr(importlib.import_module(module), "labelling", None)
    return count(settings, size) if count else None


def model_calls(denoising: DenoisingSettings) -> int:
    """Noise predictions for one latent. PNDM, which Stable Diffusion brings, makes one more than steps."""
    return denoising.steps + (denoising.scheduler in ("pndm", "checkpoint"))
