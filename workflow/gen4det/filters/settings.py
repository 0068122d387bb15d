"""Settings of the filter stage: what of a synthetic set is offered for training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gen4det.core.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]


class AestheticSettings(Settings):
    """Whole images are kept if an aesthetic predictor finds them as good as the real ones (Gen2Det).

    Scores come from `foundation.clip` and `foundation.aesthetic`. They are measured once per image; the
    threshold is applied afterwards.
    """

    enabled: bool = False
    """Whether this filter is used."""
    threshold: Literal["real-mean"] | float = "real-mean"
    """Least score of an image that is kept. real-mean: the arithmetic mean over the real training images."""


class AgreementSettings(Settings):
    """Labels are kept if a detector trained on the real images alone finds the object, too (Gen2Det).

    The detector is the arm `real` of the same data set. Its detections are measured once per image; the
    thresholds are applied afterwards.
    """

    enabled: bool = False
    """Whether this filter is used."""
    detector: str = "mask-rcnn"
    """Detector by its name in the scale's `detectors`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed that the detector was trained with."""
    min_iou: Fraction = 0.3
    """Least overlap (intersection over union of boxes) of a label and the detection that supports it."""
    min_score: Fraction = 0.1
    """Least confidence of the detection that supports a label."""
    same_class: bool = True
    """Whether that detection must be of the label's category."""
    max_per_image: Annotated[int, Field(ge=1)] = 300
    """Detections per image at most, the best ones."""


class FilterSettings(Settings):
    """Filters for the images and labels of any engine; every one is off by default.

    They are applied in the order given here; a label is rejected for the first filter it fails, those of a
    dropped image for the filter that drops the image. An image is removed if all of its labels are rejected,
    or all but those of a real image around what was drawn.
    """

    generations_per_reference: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many images generated from each reference image; null: all. Images of engines without
    reference images are all used."""
    aesthetic: AestheticSettings = AestheticSettings()
    """Filter of whole images by their looks."""
    min_score: Fraction | dict[str, Fraction] = 0.0
    """Least confidence of the engine's own labeller; for engines with several a number for each, by its name.
    Labels given by construction have no score and pass."""
    score_must_exceed: bool = False
    """Whether a score of exactly `min_score` is too little (DiffusionEngine). false: it is enough."""
    min_box_side: Annotated[float, Field(ge=0)] = 0.0
    """Least length in pixels of a box's shorter side."""
    max_aspect_ratio: Annotated[float, Field(ge=1)] | None = None
    """Largest ratio of a box's longer side to its shorter one."""
    min_area_fraction: Fraction = 0.0
    """Least area of an object as share of the image; area of the mask, or of the box where there is none."""
    max_area_fraction: Fraction = 1.0
    """Largest area of an object as share of the image."""
    max_overlap: Fraction | None = None
    """Greatest overlap (intersection over union of boxes) with a label of the same image and labeller that is
    more certain; null: any. Non-maximum suppression, for labellers that have none."""
    max_overlap_among: Literal["category", "all"] = "category"
    """Which labels `max_overlap` compares: those of one category, or all, so that an object that a labeller
    called two names keeps the more certain one."""
    agreement: AgreementSettings = AgreementSettings()
    """Filter of labels by a detector's consent."""
    max_instances: Annotated[int, Field(ge=1)] | None = None
    """Images with more labels than this, after the filters above, are removed as a whole."""
    max_images: Annotated[int, Field(ge=1)] | None = None
    """Images that are offered at most, of those that pass all filters; null: all. Which ones is drawn by a
    hash of their ids, so that a smaller number is a part of a larger one: the same amount of every
    engine's."""
    segmentation: Literal["rle", "polygon"] = "rle"
    """Form of exported masks. Polygons are understood by every loader, but cannot express holes."""

    @property
    def measures(self) -> bool:
        """Whether some filter needs more than the labels, so that images must be measured first."""
        return self.aesthetic.enabled or self.agreement.enabled

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_area_fraction > self.max_area_fraction:
            raise ValueError("min_area_fraction: must not exceed max_area_fraction")
        return self
