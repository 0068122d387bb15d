"""Settings of the miniature's data sets.

Apart from those of its foundation models and their judge, so that the hash of each depends on its own alone.
"""

from typing import Literal

from pydantic import Field

from gen4det.core.settings import Settings


class MiniatureDataset(Settings):
    """A rendered detection data set."""

    source: Literal["miniature"] = "miniature"
    """Where the data come from."""
    edition: Literal["lvis", "coco"] = "lvis"
    """lvis: long-tailed and federated; coco: exhaustive, with base and novel categories and captions."""
    train_images: int = Field(600, ge=24)
    """Training images."""
    val_images: int = Field(300, ge=1)
    """Validation images."""
    image_size: int = Field(128, ge=64)
    """Side of the square images in pixels."""
    object_size: tuple[float, float] = (18, 58)
    """Smallest and largest extent of an object in pixels."""
    style: Literal["photo", "drawing"] = "photo"
    """Drawing style of the images; "drawing" serves cross-domain studies."""
    seed: int = 2026
    """Seed of the world; splits and the models' corpus take disjoint streams of it."""
