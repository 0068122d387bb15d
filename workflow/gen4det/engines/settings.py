"""What the settings of every engine have in common."""

import functools
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gen4det.core.settings import Settings
from gen4det.engines.steps import Step, Steps


class AskedDetector(Settings):
    """A detector of real images, the arm `real` of the same data set, whose detections a step reads."""

    detector: str
    """Detector by its name in the scale's `detectors`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed that it was trained with."""
    max_per_image: Annotated[int, Field(ge=1)] = 300
    """Detections per image at most, the best ones."""


class TrainedDetector(Settings):
    """A detector of real images, the arm `real` of a data set, whose weights a step reads."""

    detector: str
    """Detector by its name in the scale's `detectors`."""
    dataset: str | None = None
    """Data set that it is trained on, by its name in the scale's `datasets`; null: the one drawn for."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed that it was trained with."""


class EngineSettings(Settings):
    """Base of `gen4det.engines.<method>.settings:Settings`."""

    steps: ClassVar[tuple[Step, ...]] = (Step("images", "draw", models=("diffusion",)),)
    """What the method does, in order; see `engines.steps`."""

    needs_images: ClassVar[bool] = True
    """Whether the method reads real images; without, names of categories suffice."""

    labels_measured: ClassVar[bool] = False
    """Whether its room has a module `label_quality`, which compares a labeller with the truth, and its
    variants have the fit steps `generator` and `head` and the field `labeller`."""

    method: str
    """Name of the room in gen4det/engines; each engine narrows it to its own name."""
    image_format: Literal["png", "jpg"] = "png"
    """Encoding of the generated images; "jpg" (quality 95) is smaller, "png" is exact."""

    @classmethod
    @functools.cache
    def checked_steps(cls) -> Steps:
        """The steps, with what follows from their order. Raises ValueError if they contradict themselves."""
        return Steps(cls.steps, set(cls.model_fields), {"method"})

    def section(self, step: Step) -> dict:
        """Values of the fields that a step reads, JSON-serialisable."""
        return self.model_dump(mode="json", include=self.checked_steps().fields(step))
