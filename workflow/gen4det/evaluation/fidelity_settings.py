"""Settings of the fidelity of generated images. Pydantic only: the Snakefile reads this module."""

from typing import Annotated, Literal

from pydantic import Field

from gen4det.core.settings import Settings
from gen4det.data.model_settings import ModelSource


class FeatureSettings(Settings):
    """The network whose features the Frechet distance compares."""

    kind: Literal["inception", "classifier"] = "inception"
    """inception: that of the Frechet Inception distance; classifier: a residual network of plain blocks,
    e.g. the miniature's, whose distance is no FID."""
    model: ModelSource
    """Folder with its weights."""


class FidelitySettings(Settings):
    """How faithful generated images are: to the layouts asked for, and to the real images."""

    detectors: dict[str, str]
    """By data set the detector whose arm `real` looks for what was asked for; subsets have that of the whole.
    Sets of other data sets are not measured."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed that those detectors were trained with."""
    features: FeatureSettings
    """What the Frechet distance compares."""
    side_by_side: dict[str, tuple[str, ...]] = {}
    """Pages of the same layouts as drawn by several engines: by data set the engines."""
    published: dict[str, dict[str, float | str]] = {}
    """What papers print, by engine: {source: text, frechet: number, AP: number, ...}."""
