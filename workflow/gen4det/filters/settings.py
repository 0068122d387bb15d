"""Settings of the filter stage: what of a synthetic set is offered for training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gen4det.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]


class FilterSettings(Settings):
    """Filters that work on labels alone; every one is off by default.

    They are applied in the order given here; a label is rejected for the first filter it fails. An image
    whose labels are all rejected is removed.
    """

    min_score: Fraction = 0.0
    """Least confidence of the engine's own labeller. Labels given by construction have no score and pass."""
    min_box_side: Annotated[float, Field(ge=0)] = 0.0
    """Least length in pixels of a box's shorter side."""
    max_aspect_ratio: Annotated[float, Field(ge=1)] | None = None
    """Largest ratio of a box's longer side to its shorter one."""
    min_area_fraction: Fraction = 0.0
    """Least area of an object as share of the image; area of the mask, or of the box where there is none."""
    max_area_fraction: Fraction = 1.0
    """Largest area of an object as share of the image."""
    max_instances: Annotated[int, Field(ge=1)] | None = None
    """Images with more labels than this, after the filters above, are removed as a whole."""
    segmentation: Literal["rle", "polygon"] = "rle"
    """Form of exported masks. Polygons are understood by every loader, but cannot express holes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_area_fraction > self.max_area_fraction:
            raise ValueError("min_area_fraction: must not exceed max_area_fraction")
        return self
