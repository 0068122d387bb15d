"""Settings of the oracle."""

from typing import ClassVar, Literal

from gen4det.engines.settings import EngineSettings
from gen4det.engines.steps import Step


class Settings(EngineSettings):
    """One variant: it draws what another engine planned."""

    steps: ClassVar[tuple[Step, ...]] = (Step("images", "draw", manifest_of="of"),)

    method: Literal["oracle"] = "oracle"
    of: str = "mosaicfusion"
    """The variant whose manifest says what to draw: canvases with one object in each region."""
