"""What the stages that run an engine share: its settings."""

import argparse
from dataclasses import dataclass
from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import engine_module, engine_settings
from gen4det.engines.settings import EngineSettings
from gen4det.stages._cli import stage_settings


class DrawingSettings(Settings):
    """Settings of every stage that runs an engine."""

    engine: dict[str, Any]
    """Settings of one method; `method` names it."""
    foundation: FoundationSettings = FoundationSettings()
    """Pretrained models the engine starts from."""
    run_seed: int = 0
    """Seed of the run; every image has its own, derived from it."""


@dataclass(frozen=True)
class Drawing:
    """Typed settings of an engine and all that its results depend on beside data and device."""

    engine: EngineSettings
    foundation: FoundationSettings
    run_seed: int

    @property
    def module(self) -> str:
        """Dotted name of the module that holds the engine."""
        return engine_module(self.engine.method, "engine")

    def resolved(self) -> dict:
        """All settings with their defaults, JSON-serialisable."""
        return {
            "engine": self.engine.model_dump(mode="json"),
            "foundation": self.foundation.model_dump(mode="json"),
            "run_seed": self.run_seed,
        }


def drawing_settings(args: argparse.Namespace) -> Drawing:
    """Settings given on the command line.

    Raises:
        InputError: one line for the first bad setting; unknown method.
    """
    settings = stage_settings(args, DrawingSettings)
    method = settings.engine.get("method")
    if not isinstance(method, str):
        raise InputError("--settings: engine.method: required key is missing")
    engine = engine_settings(method, settings.engine, source="--settings: engine")
    return Drawing(engine, settings.foundation, settings.run_seed)
