"""Settings of the measurements. Pydantic only: the Snakefile reads this module."""

from typing import Literal

from pydantic import Field, field_validator

from gen4det.core.settings import Settings
from gen4det.evaluation.prediction_settings import PredictionSettings

Kind = Literal["box", "mask"]

METRICS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf",
    "APbase", "APnovel", "AP50base", "AP50novel",
)  # fmt: skip
"""Names of the values of one kind (box or mask) in metrics.json; "mask_APr" addresses one of them."""


class MeasureSettings(Settings):
    """How detections are measured."""

    kinds: tuple[Kind, ...] | None = Field(default=None, min_length=1)
    """Which regions are compared with the ground truth. null: boxes, and masks where there are any on both
    sides."""
    area_limits: tuple[float, float] = (32.0**2, 96.0**2)
    """Areas in square pixels that divide small from medium and medium from large objects (COCO's and LVIS's
    32^2 and 96^2). In images of 128 px few objects are large; the limits stay standard unless set."""

    @field_validator("area_limits")
    @classmethod
    def _increasing(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not 0 < limits[0] < limits[1]:
            raise ValueError("two increasing positive areas are needed")
        return limits


class EvaluationSettings(PredictionSettings, MeasureSettings):
    """What is predicted, and how it is measured."""
