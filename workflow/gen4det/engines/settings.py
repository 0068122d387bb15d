"""What the settings of every engine have in common."""

from typing import ClassVar, Literal

from gen4det.core.settings import Settings


class EngineSettings(Settings):
    """Base of `gen4det.engines.<method>.settings:Settings`."""

    models: ClassVar[tuple[str, ...]] = ("diffusion",)
    """Which of the foundation models the engine reads; when another one changes, its images stand."""
    needs_fit: ClassVar[bool] = False
    """Whether `Engine.fit` must have run before anything is drawn."""

    method: str
    """Name of the room in gen4det/engines; each engine narrows it to its own name."""
    image_format: Literal["png", "jpg"] = "png"
    """Encoding of the generated images; "jpg" (quality 95) is smaller, "png" is exact."""
