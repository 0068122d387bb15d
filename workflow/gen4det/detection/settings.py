"""Settings of detectors and of their training. Pydantic only: the Snakefile reads this module."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gen4det.core.settings import Settings
from gen4det.data.model_settings import ModelSource


class Completeness(Settings):
    """How complete the labels of a source of training images are."""

    background: Literal["learn", "ignore"] = "learn"
    """Whether regions that match no label are trained on as background. ignore: anchors and proposals there
    have no loss."""
    categories: Literal["all", "image", "base"] | tuple[str, ...] = "all"
    """Categories whose objects are labelled, by name. Labels of others are left out, region proposals learn
    no background, and the classifier's columns of others get no gradient. all: every object of the data
    set's categories; image: each image says it itself, in `annotated_category_ids` of its record; base: those
    that the data set's annotations call base, in `split` of the category."""
    proposals: Literal["objects", "background"] = "objects"
    """What region proposals learn from where some categories have no labels. background: from background,
    too, as if nothing were missing, for drawn images that show little but what was asked for; somewhere they
    must learn it."""
    masks: bool | None = None
    """Whether labels have masks to learn from. null: real ones do, drawn ones if any label of the set has."""


class LabelSettings(Settings):
    """How complete the labels of real and of synthetic images are."""

    real: Completeness | None = None
    """Of the real images; null: complete."""
    synthetic: Completeness | None = None
    """Of all synthetic sets; null: what a set declares in `info.labels` of its annotations, else complete."""


class DetectorSettings(Settings):
    """One detector and how it is trained, but for data and seed."""

    config: str
    """mmengine config file: model, pipelines, optimiser, schedule, batch size over all processes."""
    iterations: int | None = Field(None, ge=1)
    """Length of the training; the schedule is stretched along. null: as the config file says."""
    schedule: float = Field(1.0, gt=0)
    """Multiple of that length that is trained, e.g. 2 for the "2x" of a paper."""
    precision: Literal["float32", "tf32"] = "float32"
    """Arithmetic of the training. float32 means float32 in matrix products and convolutions; tf32, on a GPU,
    rounds the factors of both. Predictions are made in float32."""
    backbone_weights: str | None = None
    """File of pretrained weights the backbone starts from (.safetensors, or .pth of plain tensors), with the
    parameter names of torchvision's and mmdet's ResNet. null: random weights."""
    diffusion: ModelSource | None = None
    """The text-to-image model that a FrozenDiffusion backbone is made of, which is never trained itself."""
    repeat_threshold: float = Field(0.001, ge=0, le=1)
    """t of LVIS's repeat factors: an image is seen max over its categories of max(1, sqrt(t / f)) times as
    often, f the share of training images that show the category. 0.001 is LVIS's; 0 repeats nothing."""
    repeat_by: Literal["all", "real", "each"] = "all"
    """Which images the shares f are counted on. all: the union of real and synthetic images, as if they were
    one data set; real: the real ones alone; each: real ones for real images, synthetic ones for synthetic."""
    synthetic_batches: float | None = Field(None, ge=0, le=1)
    """Probability that a batch is drawn from the synthetic images alone, otherwise from the real ones alone
    (Gen2Det). null: all images in one pool, as if they were one data set."""
    synthetic_mixing: Literal["batch", "image"] = "batch"
    """What the probability decides. batch: on whole batches, over all processes; image: on each image."""
    interleave: bool = False
    """Whether each batch is of one source alone, and the batches of all sources are interleaved in proportion
    to their sizes, each image being seen once in an epoch, or as often as its repeat factor says (InstaGen).
    The sources are the real images and each synthetic set."""
    replay_real: bool = False
    """Train on a real image in place of each synthetic one: one that shows the rarest of its categories. This
    is the control for the effect of merely seeing rare categories more often."""
    ignore_background: bool = False
    """Whether background of synthetic images is ignored: anchors and proposals there that match no label have
    no loss, since they may show a generated object whose label was rejected (Gen2Det). Short for
    labels: {synthetic: {background: ignore}}."""
    labels: LabelSettings = LabelSettings()
    """How complete the labels of each source are, where `ignore_background` does not say it all."""
    fill_with_positives: bool = False
    """How many positives are drawn from a synthetic image, with ignore_background, which draws nothing else.
    true: as many as from a real one of both kinds; false: as many as its positives, i.e. half of that for
    anchors and a quarter for proposals in the usual configurations."""
    normalise_by: Literal["sampled", "learned"] = "sampled"
    """What losses of synthetic images are divided by, with ignore_background. sampled: the regions that are
    learned from and the background left out; an object weighs as much as on a real image. learned: the former
    alone; an object weighs several times as much, and a synthetic batch far more than a real one. Dense
    one-stage heads divide by their positives in any case."""
    keep_empty: bool = False
    """Whether images without objects are trained on."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules of the library that only some detectors load, by name."""
        return ("gen4det.detection.backbones",) if self.diffusion else ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [self.labels.real, self.labels.synthetic]
        ignores = self.ignore_background or any(
            source and (source.background == "ignore" or source.categories != "all") for source in given
        )
        if self.diffusion is not None and self.backbone_weights is not None:
            raise ValueError("backbone_weights: has no meaning with a frozen diffusion model as backbone")
        if self.interleave and (self.synthetic_batches is not None or self.replay_real):
            raise ValueError("interleave: excludes synthetic_batches and replay_real")
        for name in ("fill_with_positives", "normalise_by"):
            if getattr(self, name) != type(self).model_fields[name].default and not ignores:
                raise ValueError(f"{name}: has a meaning with ignore_background alone")
        return self


class TrainSettings(Settings):
    """What the training of one detector reads."""

    detector: DetectorSettings
    """The detector."""
    real: bool = True
    """Whether the real training images are trained on. false: synthetic ones alone."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, order of images, augmentation and sampling of regions."""
