"""Settings of InstaGen (arXiv 2402.05937).

The variants in config/engines/instagen.yaml say where each constant comes from.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gen4det.core.settings import Settings as BaseSettings
from gen4det.detection.grounding_settings import GroundingLosses, GroundingShape
from gen4det.diffusion.settings import DenoisingSettings
from gen4det.engines.settings import AskedDetector, EngineSettings
from gen4det.engines.steps import Detections, Step

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]


PLAIN = ("ddim", "pndm", "dpm-solver++")
"""Samplers that hand their latents to the U-Net as they are."""


class GeneratorSettings(BaseSettings):
    """How the text-to-image model is fitted to the data (section 3.1): its U-Net alone, on crops around
    objects, captions being the names in them."""

    epochs: Annotated[float, Field(ge=0)] = 6
    """Passes over the training images that show an object; 0 leaves the model as it is."""
    batch_size: Count = 128
    """Crops of a step, over all processes."""
    micro_batch: Count = 16
    """Crops that are computed at once; a divisor of `batch_size`."""
    learning_rate: Rate = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.9999
    """Of the average of the weights, which is what draws; null: the last weights do."""
    ema_warmup: bool = False
    """Whether the average follows the weights at once in the beginning, so that it forgets where it came
    from. Without it, 0.9999 to the power of the steps of the original model are left."""
    min_snr: Rate | None = None
    """Gamma of min-SNR weighting; null: all time steps weigh alike."""
    without_caption: Share = 0.0
    """Share of crops with an empty caption, for guidance."""
    neighbours: Count = 2
    """Objects that a crop is drawn around, at most."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpointing: bool = False
    """Whether the U-Net computes its activations again in the backward pass, for want of memory."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch: {self.micro_batch} does not divide batch_size {self.batch_size}")
        return self


class ImageSettings(BaseSettings):
    """What is drawn (section 3.1). The first name of a prompt is that of the image's own category."""

    base_per_category: Annotated[int, Field(ge=0)] = 1250
    """Images for each base category."""
    novel_per_category: Annotated[int, Field(ge=0)] = 3000
    """Images for each novel category."""
    pairs: Share = 0.5
    """Share of the images with a second category."""
    second_of_novel: Literal["known", "all"] = "known"
    """What the second category of an image of a novel one may be: a base or novel one, or any of the data
    set, also one that nobody labels."""
    definition: bool = False
    """Whether each name is followed by its definition in parentheses, where the data set has some (LVIS)."""
    negative_prompt: str = ""
    denoising: DenoisingSettings = DenoisingSettings(scheduler="ddim", steps=50, guidance=5.0)
    batch_size: Count = 4
    """Images drawn together."""


class HeadSettings(BaseSettings):
    """The grounding head and how it learns (sections 3.3 and 3.4)."""

    shape: GroundingShape = GroundingShape()
    losses: GroundingLosses = GroundingLosses()
    epochs: Annotated[int, Field(ge=0)] = 12
    """Passes over the images; 0 writes a head that has learned nothing, for sets without novel categories."""
    self_training_from: Annotated[int, Field(ge=0)] | None = 6
    """Number of the epoch, from 0, from which images of novel categories are trained on as well, with what a
    teacher finds in them; null: never."""
    novel_per_category: Annotated[int, Field(ge=1)] | None = 1250
    """Images of each novel category that are trained on, the first ones; null: all that were drawn."""
    batch_size: Count = 32
    """Images of a step, all of base or all of novel categories, over all processes."""
    micro_batch: Count = 4
    """Images that are computed at once; a divisor of `batch_size`."""
    learning_rate: Rate = 1e-4
    last_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs at the end with a tenth of the rate."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps in which the rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    max_norm: Rate = 0.1
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999
    """What a step leaves of the teacher; the rest comes from the student."""
    shared_features: bool = True
    """Whether teacher and student look at one pass of the U-Net. false: one each, as in the released code,
    for comparison; the features are the same."""
    keep_every: Count | None = None
    """Epochs after which the head is kept as well, beside the last one, for curves; null: never."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch: {self.micro_batch} does not divide batch_size {self.batch_size}")
        return self


class FeatureSettings(BaseSettings):
    """Where the head looks: the features of the last step of a generation, with and without prompt."""

    model: Literal["generator", "foundation"] = "generator"
    """Whose they are: those of the model that drew, or, in the released code, of the one before its fit."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"


class LabelSettings(BaseSettings):
    """Which images and labels are offered for training."""

    novel_by: Literal["head", "detector"] = "head"
    """Who labels novel categories. detector, a control: what the labelling detector takes for anything in an
    image of one category is called that category."""
    detector_score: Share = 0.5
    """Least score of those."""
    base_per_category: Annotated[int, Field(ge=0)] | None = None
    """Images of each base category that are used, the first ones; null: all."""
    novel_per_category: Annotated[int, Field(ge=0)] | None = None
    """The same of novel ones."""
    overlap: Annotated[float, Field(gt=0, le=1)] | None = None
    """IoU from which the worse of two boxes of a class is left out; null: the head's queries exclude each
    other by themselves."""


class Settings(EngineSettings):
    """One variant of the engine."""

    steps: ClassVar[tuple[Step, ...]] = (
        Step(
            "generator", "fit", settings=("vocabulary", "prompt", "size", "generator"), models=("diffusion",)
        ),
        Step(
            "images",
            "draw",
            reads=("generator",),
            settings=("vocabulary", "prompt", "size", "images"),
            models=("diffusion",),
        ),
        Step(
            "head",
            "fit",
            reads=("generator", "images"),
            settings=("vocabulary", "alpha", "beta", "features", "head"),
            models=("diffusion",),
            detections=(Detections("images", "labeller"),),
        ),
        Step(
            "labels",
            "label",
            reads=("generator", "images", "head"),
            settings=("vocabulary", "alpha", "beta", "features", "labels"),
            models=("diffusion",),
            detections=(Detections("images", "labeller"),),
        ),
    )

    labels_measured: ClassVar[bool] = True

    method: Literal["instagen"] = "instagen"
    vocabulary: Literal["open", "closed"] = "open"
    """open: base categories are labelled in the training images, novel ones are not, and the head finds them.
    closed: all are labelled and count as base, for studies of scarce data; the detector labels them."""
    prompt: str = "a photograph of {}"
    """{}: names of the categories, joined by " and ". Captions of the generator's crops, too."""
    size: Count = 512
    """Side of crops and images in pixels."""
    labeller: AskedDetector = AskedDetector(detector="mask-rcnn")
    """Detector of base categories that labels them in drawn images; it has seen the real images alone."""
    alpha: Share = 0.8
    """Least score of its labels."""
    beta: Share = 0.4
    """Scores of the head above which an object of a novel category is a label, of the teacher's and in the
    end."""
    generator: GeneratorSettings = GeneratorSettings()
    images: ImageSettings = ImageSettings()
    head: HeadSettings = HeadSettings()
    features: FeatureSettings = FeatureSettings()
    labels: LabelSettings = LabelSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.prompt.count("{}") != 1 or set("{}") & set(self.prompt.replace("{}", "")):
            raise ValueError("prompt: must contain {} once, and no other braces")
        if self.images.denoising.scheduler not in PLAIN:
            raise ValueError(
                f"images.denoising.scheduler: expected one of {', '.join(PLAIN)}, whose latents are "
                "what the U-Net sees in the last step"
            )
        if self.images.denoising.steps < 2:
            raise ValueError("images.denoising.steps: at least 2, since the last one is looked into again")
        return self
