"""Settings of DiffusionEngine (arXiv 2309.03893).

The variants in config/engines/diffusionengine.yaml say where each constant comes from.
"""

from decimal import Decimal
from string import Formatter
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gen4det.core.settings import Settings as BaseSettings
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.engines.settings import EngineSettings, TrainedDetector
from gen4det.engines.steps import Step

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]

LAST_STEP, PIXELS = "last-step", "pixels"
"""The two labellers: features of the last step; of the finished picture, encoded again."""


class SizeSettings(BaseSettings):
    """Size in pixels that references are brought to; what is drawn has the same. Nothing is padded."""

    short: Count = 512
    """Length of the shorter side; less, where the longer one would exceed `long`."""
    long: Count | None = 1024
    """Greatest length of the longer side; null: none."""
    crop: tuple[Count, Count] | None = None
    """Each side of a random part that is cut out: uniform from the first number to the second, or to the side
    where that is shorter. null: the whole image."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.long is not None and self.long < self.short:
            raise ValueError("long: shorter than `short`")
        if self.crop is not None and self.crop[0] > self.crop[1]:
            raise ValueError("crop: the first number must not exceed the second")
        return self


class PromptSettings(BaseSettings):
    """What a reference is redrawn as. In templates {domain} and {style} stand for the two texts below."""

    captions: bool = True
    """Whether captions are used where the data set has them; one of an image's, at random."""
    caption: str = "{caption}"
    """Prompt of an image with captions. {caption}: white space squeezed, without the full stop at its end."""
    classes: str = "A {domain}, with {names} in the {domain}"
    """Prompt of an image without. {names}: its categories, in random order, separated by commas."""
    nothing: str = "A {domain}"
    """Prompt of an image with neither captions nor objects."""
    max_classes: Count | None = None
    """Categories that are named at most; null: all."""
    domain: str = "photo"
    """What kind of picture it is to be."""
    style: str = "realistic photo"
    """The same, described."""
    lower_case: bool = False
    """Whether the whole prompt is written in small letters."""
    suffix: str = ""
    """Added to every prompt, after a comma."""
    negative: str = ""
    """What guidance leads away from; empty: from the empty prompt."""

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        for name, own in (("caption", "caption"), ("classes", "names"), ("nothing", None)):
            try:
                found = [part[1] for part in Formatter().parse(getattr(self, name)) if part[1] is not None]
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            if unknown := sorted(set(found) - {"domain", "style", own}):
                raise ValueError(f"{name}: unknown field {{{unknown[0]}}}")
            if own is not None and found.count(own) != 1:
                raise ValueError(f"{name}: must contain {{{own}}} once")
        return self


class SamplingSettings(BaseSettings):
    """How references are noised and denoised: DDIM, which alone has `eta`."""

    steps: Count = 50
    """Steps from pure noise to a picture; a redrawn one makes the last of them."""
    encode_ratio: tuple[Fraction, Fraction] = (0.3, 1.0)
    """Least and greatest share of the steps that is made. Whole numbers of steps between the two, each
    equally likely; small ones give near copies, 1 starts from almost nothing but noise."""
    guidance: tuple[NotNegative, NotNegative] = (7.5, 7.5)
    """Least and greatest weight of classifier-free guidance; uniform between the two. 1 is none."""
    eta: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.1, 0.2, 0.3, 0.4)
    """Noise that is added at each step as share of DDPM's; each equally likely."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the U-Net; see `DenoisingSettings`."""
    low_memory: bool = False
    """Evaluate the U-Net with and without prompt one after the other instead of in one call."""

    @property
    def step_range(self) -> tuple[int, int]:
        """Least and greatest number of steps that are made: shares of the steps, rounded down.

        Worked out in decimals: 0.58 of 50 is 29, and in binary fractions 28.
        """
        least, most = (int(Decimal(str(ratio)) * self.steps) for ratio in self.encode_ratio)
        return least, most

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("encode_ratio", "guidance"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: the first number must not exceed the second")
        if self.step_range[0] < 1:
            raise ValueError(
                f"encode_ratio: {self.encode_ratio[0]} of {self.steps} steps is no step at all; expected at "
                f"least {1 / self.steps:g}"
            )
        return self


class Settings(EngineSettings):
    """One variant of the engine."""

    steps: ClassVar[tuple[Step, ...]] = (
        Step("images", "draw", models=("diffusion",), detectors=("adapter",)),
    )

    method: Literal["diffusionengine"] = "diffusionengine"

    # --- who labels ---
    adapter: TrainedDetector = TrainedDetector(detector="adapter")
    """The detection adapter: a detector on a FrozenDiffusion backbone, trained by the workflow on real
    images. Of another data set than the one that is drawn for, its categories are taken over by their names
    ("remapped"), and those that are not found are left out; of the same, all must agree ("target")."""
    control: bool = False
    """Whether each picture is labelled a second time: decoded, encoded again, seen as the adapter sees real
    images. Labels then come from two labellers, "last-step" and "pixels", between which a filter chooses."""
    max_per_image: Count = 300
    """Boxes of an image at most, the best ones."""
    least_score: Fraction = 0.05
    """Boxes below are not even stored. What is trained on says the filter's `min_score`."""

    # --- what to draw anew ---
    references: Count | None = None
    """How many real training images are drawn anew, in an order given by a hash; null: all."""
    generations_per_reference: Count = 2
    """Images drawn from each of them, with different seeds. A larger number only adds images."""
    size: SizeSettings = SizeSettings()
    """Size of references and results; sides are brought to whole latent cells."""
    prompt: PromptSettings = PromptSettings()
    """Prompts."""

    # --- diffusion ---
    model: ModelSource | None = None
    """Pipeline to use instead of the run's common one (`foundation.diffusion`). It must be the one that the
    adapter was trained on."""
    sampling: SamplingSettings = SamplingSettings()
    """Noise and denoising."""
    batch_size: Count = 8
    """Images drawn together, at most: they have equal sizes and make equally many steps."""

    @property
    def denoising(self) -> DenoisingSettings:
        """The sampler in the words of all engines; its guidance is the mean."""
        sampling = self.sampling
        return DenoisingSettings(
            scheduler="ddim",
            steps=sampling.steps,
            guidance=sum(sampling.guidance) / 2,
            precision=sampling.precision,
            low_memory=sampling.low_memory,
        )
