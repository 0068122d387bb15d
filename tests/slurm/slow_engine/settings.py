"""Settings of the slow engine."""

from typing import ClassVar, Literal

from gen4det.engines.settings import EngineSettings
from gen4det.engines.steps import Step


class Settings(EngineSettings):
    """Nothing of what a test makes it do on the way is here: it must not change what is drawn."""

    steps: ClassVar[tuple[Step, ...]] = (Step("images", "draw"),)

    method: Literal["slow"] = "slow"
    images: int = 4
