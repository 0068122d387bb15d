"""Settings of Gen2Det (arXiv 2312.04566).

The variants in config/engines/gen2det.yaml say where each constant comes from.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings as BaseSettings
from gen4det.diffusion.settings import DenoisingSettings, FoundationSettings, ModelSource
from gen4det.engines.settings import EngineSettings
from gen4det.engines.steps import Step

Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class ModelSize(BaseSettings):
    """Size in pixels at which the model paints; multiples of its latent cell (8 for Stable Diffusion)."""

    height: Count = 512
    width: Count = 512


class Settings(EngineSettings):
    """One variant of the engine."""

    steps: ClassVar[tuple[Step, ...]] = (Step("images", "draw", models=("inpainting",)),)

    method: Literal["gen2det"] = "gen2det"

    # --- what to paint anew ---
    references: Count | None = None
    """How many real training images are painted anew; null: all that have a box."""
    reference_order: Literal["random", "rare-first"] = "random"
    """Which images come first where `references` limits them. "random": by a hash. "rare-first": by how many
    training images show the rarest of their categories, so that a small budget goes to rare categories."""
    generations_per_reference: Count = 2
    """Images painted from each real one, with different seeds. A larger number only adds images."""
    max_boxes: Annotated[int, Field(ge=1, le=30)] = 30
    """Boxes of an image that are painted, the first ones of `box_order`. GLIGEN takes 30 at most."""
    box_order: Literal["largest-first", "rare-first"] = "largest-first"
    """Which boxes of an image come first where `max_boxes` limits them. "rare-first": those whose category
    the fewest training images show, the larger ones first among them."""
    max_covered: Fraction = 0.5
    """A box beyond `max_boxes` still shows its real object, unless more than this share of its area is
    painted over; then its label is as doubtful as those of painted boxes."""

    # --- prompt ---
    prompt: str = "{names}"
    """{names}: names of the painted categories, each once, separated by commas."""
    negative_prompt: str = ""
    """What guidance leads away from; empty: from the empty prompt."""

    # --- diffusion ---
    model: ModelSource | None = None
    """Pipeline to use instead of the run's common one (`foundation.inpainting`)."""
    size: ModelSize = ModelSize()
    """The whole image is resized to this, not cropped, and back to its own size when it is painted."""
    denoising: DenoisingSettings = DenoisingSettings(scheduler="pndm", steps=50, guidance=7.5)
    scheduled_sampling: Fraction = 1.0
    """Share of the steps, from the first on, in which the model sees the boxes (GLIGEN's beta)."""
    batch_size: Count = 8
    """Images painted together."""

    # --- back into the real image ---
    paste_back: bool = True
    """Put the real image's own pixels around what was painted; otherwise the autoencoder's copy of them."""
    feather: Pixels = 4
    """Width of the soft edge in pixels of the image, inwards from the border of what was painted."""

    def source(self, foundation: FoundationSettings) -> ModelSource:
        """The grounded inpainting model.

        Raises:
            InputError: none is given.
        """
        source = self.model or foundation.inpainting
        if source is None:
            raise InputError(
                "foundation.inpainting: no model given; expected a folder or a hub id with revision"
            )
        return source

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.prompt.count("{names}") != 1 or set("{}") & set(self.prompt.replace("{names}", "")):
            raise ValueError("prompt: must contain {names} once, and no other braces")
        return self
