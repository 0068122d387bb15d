"""Settings of the measurements. Pydantic only: the Snakefile reads this module.

Apart from the settings of predictions and of tables, so that the hash of each depends on its own alone.
"""

from typing import Literal

from pydantic import Field, field_validator

from gen4det.core.settings import Settings
from gen4det.evaluation.prediction_settings import PredictionSettings

Kind = Literal["box", "mask"]

METRICS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf",
    "APbase", "APnovel", "APbasenovel", "AP50base", "AP50novel", "AP50basenovel",
)  # fmt: skip
"""Names of the values of one kind (box or mask) in metrics.json; "mask_APr" addresses one of them.

AP is the mean over IoU 0.50:0.05:0.95; AP50 and AP75 are at one IoU; APs, APm, APl over small, medium and
large objects; APr, APc, APf over LVIS's rare, common and frequent categories; base and novel over those
categories, basenovel over both together, "all" in papers on open vocabulary. docs/metrics.md has all metrics.
"""


def needs_split(metric: str) -> bool:
    """Whether a metric is a mean over base or novel categories."""
    return metric.endswith(("base", "novel"))


class MeasureSettings(Settings):
    """How detections are measured."""

    kinds: tuple[Kind, ...] | None = Field(default=None, min_length=1)
    """Which regions are compared with the ground truth. null: boxes, and masks where there are any on both
    sides."""
    area_limits: tuple[float, float] = (32.0**2, 96.0**2)
    """Areas in square pixels that divide small from medium and medium from large objects (COCO's and LVIS's
    32^2 and 96^2). In images of 128 px few objects are large; the limits stay standard unless set."""
    splits: dict[str, str] = {}
    """By data set a file that says which categories are base and which novel, e.g. {coco:
    resources/splits/coco_ovd.yaml}; subsets have that of the whole. Other data sets say it in `split` of
    their categories, or have none."""

    @field_validator("area_limits")
    @classmethod
    def _increasing(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not 0 < limits[0] < limits[1]:
            raise ValueError("two increasing positive areas are needed")
        return limits


class EvaluationSettings(PredictionSettings, MeasureSettings):
    """What is predicted, and how it is measured."""
