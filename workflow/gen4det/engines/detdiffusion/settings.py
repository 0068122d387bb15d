"""Settings of DetDiffusion (arXiv 2403.13304) and of GeoDiffusion (arXiv 2306.04607), on which it builds.

The variants in config/engines/detdiffusion.yaml say where each constant comes from.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings as BaseSettings
from gen4det.detection.settings import DetectorSettings
from gen4det.diffusion.settings import DenoisingSettings, FoundationSettings, ModelSource
from gen4det.engines.settings import AskedDetector, EngineSettings
from gen4det.engines.steps import Detections, Step

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Strategy = Literal["origin", "easy", "hard"]


class LayoutSettings(BaseSettings):
    """Which real images give layouts: to learn from, and to draw."""

    least_area: Fraction = 0.02
    """An object must cover more than this share of its image, by the area of its box."""
    min_objects: Count = 3
    """Images with fewer such objects are left out."""
    max_objects: Count = 8
    """Images with more are left out, too."""
    excluded: tuple[str, ...] = ("other",)
    """Categories that are left out, by name."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_objects > self.max_objects:
            raise ValueError("min_objects: must not exceed max_objects")
        return self


class WordSettings(BaseSettings):
    """How a layout becomes a prompt."""

    columns: Annotated[int, Field(ge=2, le=1024)] = 256
    """Positions along the width; each place of the grid is a new word."""
    rows: Annotated[int, Field(ge=2, le=1024)] = 256
    """Positions along the height."""
    opening: str = "An image with"
    """What a prompt begins with; objects follow, separated by spaces."""
    init_norm: Positive | None = None
    """Length that the initial vectors of locations are scaled to; null: as the formula gives them, the root
    of half their width."""
    attributes: Literal["new", "plain"] = "new"
    """Whether [easy] and [hard] are new words, which begin as the mean of what they were spelled with, or
    stay plain text."""


class AttributeSettings(BaseSettings):
    """When a real object is easy: a detector finds it."""

    min_score: Fraction = 0.5
    """Detections with a higher score count (gamma)."""
    min_iou: Fraction = 0.5
    """Overlap with the object that one of them must exceed (beta)."""
    same_class: bool = False
    """Whether it must name the object's category."""
    stuff: Literal["none", "hard"] = "none"
    """Objects of categories with `isthing: 0`, which a detector of things cannot find: none, no attribute."""
    folds: Count = 1
    """1: the detector that is asked has seen the very images, which makes more of them easy. More: this
    step trains as many detectors itself, each on the other folds, and they are asked about what they have
    not seen."""
    fold_detector: DetectorSettings | None = None
    """How those are trained."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.folds > 1) != (self.fold_detector is not None):
            raise ValueError("folds: more than one need fold_detector, and one has no use for it")
        return self


class PerceptionSettings(BaseSettings):
    """The loss of a segmentation head on the U-Net's features (P.A. loss)."""

    weight: Annotated[float, Field(ge=0)] = 0.01
    """Its weight (lambda); 0 builds no head."""
    masks: Literal["semantic", "foreground", "box"] = "semantic"
    """What the head predicts. semantic: the masks of each category; foreground: their union; box:
    rectangles of each category. Where an object has no mask, its rectangle stands for it."""
    channels: Annotated[int, Field(ge=8, multiple_of=8)] = 448
    """Width of the head."""


class GeneratorSettings(BaseSettings):
    """How the text-to-image model is fine-tuned."""

    steps: Count = 11_000
    """Optimiser steps."""
    batch: Count = 256
    """Images of a step, over all processes and parts."""
    parts: Count = 8
    """Pieces that the batch is computed in; processes share them."""
    learning_rate: Positive = 1.5e-4
    """Of the U-Net and the head, at its largest."""
    warmup: Whole = 3000
    """Steps over which it rises; afterwards it falls along a cosine."""
    text_rate: Positive = 0.75
    """Multiple of it that the last layer of the text encoder has."""
    text_decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Multiple from each layer of the text encoder to the one below; words are the lowest."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Not of vectors, nor of the text encoder's positions."""
    max_norm: Positive = 1.0
    """Gradients longer than this are shortened to it."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an average of the weights; null: none."""
    precision: Literal["float32", "bfloat16", "float16"] = "float16"
    """Arithmetic of the models; weights, optimiser and losses stay in float32."""
    checkpointing: bool = True
    """Compute activations twice instead of keeping them."""
    flip: Fraction = 0.5
    """Probability that an image and its boxes are mirrored."""
    null_prompts: Fraction = 0.1
    """Share of samples with the empty prompt, for guidance."""
    train_unet: bool = True
    """Whether the U-Net learns, or the text encoder alone."""
    foreground: bool = True
    """Whether cells of objects weigh more in the noise loss."""
    foreground_weight: Positive = 2.0
    """How much more, at equal area."""
    foreground_power: Annotated[float, Field(ge=0)] = 0.2
    """Weights fall with this power of the area of a box."""
    perception: PerceptionSettings = PerceptionSettings()
    """The second loss."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch % self.parts:
            raise ValueError(f"parts: {self.parts} parts do not share a batch of {self.batch} evenly")
        if self.perception.weight and not self.train_unet:
            raise ValueError("perception.weight: a U-Net that does not learn gains nothing from it; give 0")
        return self


class ModelSize(BaseSettings):
    """Size in pixels that images are drawn at, whatever their aspect; multiples of the model's latent
    cell."""

    height: Count = 256
    width: Count = 256


class Settings(EngineSettings):
    """One variant of the engine."""

    steps: ClassVar[tuple[Step, ...]] = (
        Step(
            "attributes",
            "fit",
            settings=("attributes",),
            detections=(Detections("dataset", "detector"),),
            has_losses=False,
        ),
        Step(
            "generator",
            "fit",
            reads=("attributes",),
            settings=("detector", "attributes", "layouts", "words", "size", "model", "generator"),
            models=("diffusion",),
        ),
        Step(
            "images",
            "draw",
            reads=("attributes", "generator"),
            settings=(
                "detector", "attributes", "layouts", "words", "size", "strategy", "references",
                "reference_order", "images_per_layout", "mirrored", "max_shift", "least_visible", "denoising",
                "batch_size",
            ),
        ),
    )  # fmt: skip

    method: Literal["detdiffusion"] = "detdiffusion"

    detector: AskedDetector | None = None
    """Detector of real images that tells easy objects from hard ones; null: prompts have no attributes
    (GeoDiffusion)."""
    attributes: AttributeSettings = AttributeSettings()
    layouts: LayoutSettings = LayoutSettings()
    words: WordSettings = WordSettings()
    size: ModelSize = ModelSize()
    model: ModelSource | None = None
    """Text-to-image pipeline to start from instead of the run's common one (`foundation.diffusion`)."""
    generator: GeneratorSettings = GeneratorSettings()

    # --- what is drawn ---
    strategy: Strategy = "origin"
    """Attributes in prompts: those of the real objects, or all easy, or all hard."""
    references: Count | None = None
    """How many layouts are drawn; null: all. A smaller number is a part of a larger one."""
    reference_order: Literal["random", "rare-first"] = "random"
    """Which come first: by a hash, or by how many training images show the rarest of their categories."""
    images_per_layout: Count = 1
    """Images of each layout, with different seeds."""
    mirrored: Fraction = 0.0
    """Probability that a layout is mirrored before it is drawn."""
    max_shift: Whole = 0
    """Pixels of the real image by which a layout is moved at most, along both axes."""
    least_visible: Fraction = 0.5
    """Share of a moved box that must stay inside the image, or the object is left out."""
    denoising: DenoisingSettings = DenoisingSettings(scheduler="dpm-solver++", steps=50, guidance=4.0)
    batch_size: Count = 8
    """Images drawn together."""

    @model_validator(mode="after")
    def _attributes_known(self) -> Self:
        if self.strategy != "origin" and self.detector is None:
            raise ValueError(
                f"strategy: {self.strategy!r} needs attributes, so name a detector that tells them"
            )
        return self


def source_of(model: ModelSource | None, foundation: FoundationSettings) -> ModelSource:
    """The text-to-image model to start from: the engine's own, or the run's.

    Raises:
        InputError: none is given.
    """
    source = model or foundation.diffusion
    if source is None:
        raise InputError("foundation.diffusion: no model given; expected a folder or a hub id with revision")
    return source
