"""What the settings of every engine have in common."""

from typing import Literal

from gen4det.settings import Settings


class EngineSettings(Settings):
    """Base of `gen4det.engines.<method>.settings:Settings`."""

    method: str
    """Name of the room in gen4det/engines; each engine narrows it to its own name."""
    image_format: Literal["png", "jpg"] = "png"
    """Encoding of the generated images; "jpg" (quality 95) is smaller, "png" is exact."""
