"""Settings of predictions. Pydantic only: the Snakefile reads this module.

Apart from the settings of the measurements, so that the hash of predictions does not depend on those: a new
measure predicts nothing again.
"""

from pydantic import Field

from gen4det.core.settings import Settings

MAX_DETECTIONS = {"coco": 100, "lvis": 300}
"""Per image and category (COCO) or per image (LVIS)."""


class PredictionSettings(Settings):
    """What is predicted."""

    max_per_image: int | None = Field(default=None, ge=1)
    """Detections the detector may return per image; null: 300 for LVIS, 100 for COCO, as their papers do."""
