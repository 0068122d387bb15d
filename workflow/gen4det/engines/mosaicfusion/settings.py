"""Settings of MosaicFusion (arXiv 2309.13042). Sizes are in pixels of the canvas.

The variants in config/engines/mosaicfusion.yaml say where each constant comes from.
"""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gen4det.diffusion.settings import DenoisingSettings, FoundationSettings, ModelSource
from gen4det.engines.mosaicfusion.mask_settings import MaskSettings
from gen4det.engines.settings import EngineSettings

Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=0)]
Group = Literal["r", "c", "f"]


class Settings(EngineSettings):
    """One variant of the engine."""

    needs_images: ClassVar[bool] = False

    method: Literal["mosaicfusion"] = "mosaicfusion"

    # --- what to draw ---
    main_groups: tuple[Group, ...] = ("r",)
    """LVIS frequency groups whose categories are each drawn `images_per_category` times."""
    main_rarest: Count | Annotated[float, Field(gt=0, lt=1)] | None = None
    """In place of `main_groups`: so many categories, or this share of them (rounded up), those with the
    fewest training images, whatever LVIS would call them."""
    partner_groups: tuple[Group, ...] = ("r", "c", "f")
    """Groups from which the other objects of a canvas are drawn, uniformly and with replacement."""
    images_per_category: Count = 25
    """Images drawn per main category, before any is dropped."""
    objects: Annotated[tuple[Literal[1, 2, 4], ...], Field(min_length=1)] = (4,)
    """Objects on a canvas; of several choices, each canvas takes one at random."""
    random_stream: Literal["per-image", "official"] = "per-image"
    """"per-image": every draw comes from a hash of run seed, main category and image number, so that an image
    depends on nothing else. "official": the released code's single stream and its few noise seeds."""

    # --- canvas ---
    region_height: Count = 384
    """Mean size of one object's region; two lie side by side in either direction of a canvas of four."""
    region_width: Count = 512
    centre_sigma: Annotated[float, Field(gt=0, le=0.5)] = 0.375
    """Where the regions meet: between sigma and 1 - sigma of the canvas. 0.5 fixes the centre."""
    overlap_height: Pixels = 48
    """Height of the band that an upper and a lower region share, half of it on either side of the cut."""
    overlap_width: Pixels = 64

    # --- prompt ---
    prompt: str = "a photo of a single {name}"
    definition: bool = True
    """Append ", " and the category's definition (field `def` of LVIS), where it has one."""
    token: Literal["mean", "max", "phrase", "official"] = "mean"
    """Whose attention makes the mask. "mean", "max": over all tokens of the head name, found by position.
    "phrase": the mean over name and definition, for models that attend to an object from the words that
    describe it. "official": the name's last token, at its first occurrence anywhere in the prompt."""

    # --- diffusion ---
    model: ModelSource | None = None
    """Pipeline to use instead of the run's common one (`foundation.diffusion`)."""
    denoising: DenoisingSettings = DenoisingSettings(scheduler="lms", steps=50, guidance=7.5)
    blend: Literal["gaussian", "constant", "quartic"] = "gaussian"
    """Weight of a region's noise prediction, by the distance from its centre."""
    rounding: Literal["round", "truncate"] = "round"
    """How decoded pixels become 8-bit integers."""
    batch_size: Count = 8
    """Canvases denoised together. They must share one geometry, so a rare geometry makes a smaller batch."""
    canvases_per_geometry: Count = 1
    """Consecutive images of a category that share number of objects and geometry. 1, as published; larger
    values fill batches where there are few images, at the price of less varied layouts."""

    # --- masks ---
    attention_resolutions: Annotated[tuple[Literal[1, 2, 4, 8], ...], Field(min_length=1)] = (1, 2, 4)
    """Cross-attention layers that are read, by the factor at which they see the latent image smaller. Factors
    that the U-Net has no layer for are skipped."""
    attention_mid_block: bool = False
    """Read the middle block, too (at its own factor, which `attention_resolutions` need not contain)."""
    attention_steps: tuple[Pixels, Count] = (0, 50)
    """Attention is averaged over the U-Net evaluations after the first number, up to the second, counted from
    1. PNDM makes one evaluation more than it is asked for steps."""
    masks: MaskSettings = MaskSettings()
    drop_image: bool = True
    """Drop the whole image when any of its regions has no mask, so that no object stays unlabelled."""

    def source(self, foundation: FoundationSettings) -> ModelSource | None:
        """The text-to-image model."""
        return self.model or foundation.diffusion

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.prompt.count("{name}") != 1 or set("{}") & set(self.prompt.replace("{name}", "")):
            raise ValueError("prompt: must contain {name} once, and no other braces")
        if self.attention_steps[0] >= self.attention_steps[1]:
            raise ValueError("attention_steps: the first number must be smaller than the second")
        if self.random_stream == "official" and self.canvases_per_geometry > 1:
            raise ValueError("canvases_per_geometry: the official random stream draws every geometry anew")
        for axis in ("height", "width"):
            smallest = int(2 * self.centre_sigma * getattr(self, f"region_{axis}"))
            if getattr(self, f"overlap_{axis}") // 2 > smallest:
                raise ValueError(
                    f"overlap_{axis}: half of it must fit into the smallest region, {smallest} px"
                )
        return self


def rarest_number(amount: int | float, categories: int) -> int:
    """How many categories `main_rarest` means of so many."""
    return min(categories, amount if amount >= 1 else math.ceil(amount * categories))
