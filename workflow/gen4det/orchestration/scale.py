"""A run configuration ("scale"): config/config.yaml, config/paper.yaml or a file of the user's own.

Nothing here imports torch: every job of a cluster run parses the Snakefile again.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from gen4det.core.settings import Settings, suggest
from gen4det.data.download_settings import ModelDownloads
from gen4det.data.settings import DatasetSettings
from gen4det.detection.settings import DetectorSettings
from gen4det.diffusion.settings import FoundationSettings
from gen4det.evaluation.fidelity_settings import FidelitySettings
from gen4det.evaluation.settings import EvaluationSettings
from gen4det.miniature.canvas_judge_settings import CanvasJudge
from gen4det.miniature.foundation_settings import FoundationTraining


def unique(values: tuple) -> tuple:
    """Refuse a value that comes twice; for pydantic's AfterValidator."""
    if len(set(values)) != len(values):
        raise ValueError("the same value twice")
    return values


NAME = r"^[a-z0-9]+([-_][a-z0-9]+)*$"
Name = Annotated[str, Field(pattern=NAME)]
"""Names become folders and wildcards: lower-case letters and digits, single - or _ between them."""

Shards = Annotated[int, Field(ge=1, le=99999)]
"""A number of jobs; files of shards have five digits."""


def _either(schema: dict) -> None:
    schema["oneOf"] = [{"required": schema.pop("required")}, {"required": ["same_as"]}]


class Detector(DetectorSettings):
    """A detector of a scale: settings of its own, or {same_as: another one}."""

    model_config = ConfigDict(json_schema_extra=_either)

    same_as: Annotated[Name | None, Field(exclude=True)] = None
    """Another detector of this scale: the two are one, trainings included. Nothing else stands beside it."""


LAYOUTS = ("coco", "yolo", "voc", "imagefolder")
"""Layouts of exports."""
MERGED = "-merged"
"""Ending of the folder of an export with the real images."""


class JobNeeds(Settings):
    """What one job asks of the machine; none of it changes a result."""

    threads: Annotated[int, Field(ge=1)] = 1
    """Processor cores. On a machine with fewer, what is there."""
    mem_mb: Annotated[int, Field(ge=100)] = 2000
    """Main memory in MB at the first attempt; a retry asks for more."""
    runtime: Annotated[int, Field(ge=1)] = 60
    """Wall clock in minutes. Jobs that can resume stop themselves shortly before."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """GPUs; 0 runs on the CPU. A profile with `resources: {gpu: 0}` overrules it."""


class Needs(Settings):
    """What the jobs of each rule need."""

    data: JobNeeds = JobNeeds()
    """render, photographs, download"""
    fit: JobNeeds = JobNeeds(threads=4, mem_mb=8000)
    """Learning a model that an engine needs, for engines that learn; the miniature's foundation models."""
    plan: JobNeeds = JobNeeds()
    """Deciding what to draw."""
    generate: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """Drawing one shard."""
    label: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """Labelling one drawn shard, for engines that label afterwards."""
    filter: JobNeeds = JobNeeds()
    """Choosing what is offered for training."""
    measure: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """What filters look at: scores of images, detections in them."""
    train: JobNeeds = JobNeeds(threads=4, mem_mb=8000)
    """Training one detector with one seed."""
    predict: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """What one detector finds in the validation images of one data set."""
    evaluate: JobNeeds = JobNeeds(mem_mb=4000)
    """Measuring those predictions; never on a GPU."""
    plot: JobNeeds = JobNeeds()
    """Tables, figures, galleries."""


class Export(Settings):
    """A synthetic set in the layout of another tool: <results>/exports/<dataset>/<engine>/<layout>/."""

    dataset: Name
    """Data set that the engine draws for."""
    engine: Name
    """Variant of an engine."""
    layout: Literal["coco", "yolo", "voc", "imagefolder"]
    """COCO, YOLO, PASCAL VOC or Hugging Face's imagefolder."""
    merged: bool = False
    """Whether the real images are in it, too. The folder then ends in -merged."""

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.layout + MERGED * self.merged


class Config(Settings):
    """One scale: what config/config.yaml, config/paper.yaml or a file of your own holds."""

    scale: Name
    """Name of the scale; every table row says at which one it was run."""
    results: str
    """Folder of everything that is made, relative to the repository. Two scales never share one."""
    studies: Annotated[tuple[Name, ...], AfterValidator(unique)] = ()
    """Tables to make; each names a file config/studies/<study>.yaml."""
    exports: Annotated[tuple[Export, ...], AfterValidator(unique)] = ()
    """Synthetic sets to write in layouts of other tools; without studies, all that a run makes."""
    arms: dict[Name, Annotated[tuple[Name, ...], AfterValidator(unique)]] = {}
    """Of some studies only these rows, e.g. {lvis_rare: [real, gen2det]}; none: all."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(unique)] = (
        0,
    )
    """Seeds every detector is trained with; a table row is the mean over them."""
    run_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generated data: each image's own seed is a hash of this, its engine and its index."""
    shards: Shards = 1
    """Jobs that the generation of one synthetic set is cut into. Changes how many draw, not what is drawn."""
    engine_shards: dict[Name, Shards] = {}
    """In place of `shards` for some engines, e.g. {gen2det: 256}. Named is the variant that draws; those that
    share its images follow it."""
    foundation: FoundationSettings
    """Pretrained models the engines start from."""
    downloads: ModelDownloads = ModelDownloads()
    """Models that are downloaded before they are used."""
    datasets: dict[Name, DatasetSettings]
    """Detection data; stages see them by the name given here."""
    detectors: dict[Name, Detector]
    """Detectors and how they are trained at this scale."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How detections are measured."""
    fidelity: FidelitySettings | None = None
    """How faithful generated images are is measured; <results>/tables/fidelity.csv reads it. null: not at
    all."""
    foundation_training: FoundationTraining = FoundationTraining()
    """How the miniature's own foundation models are trained; `miniature_foundation` alone reads it."""
    canvas_judge: CanvasJudge = CanvasJudge()
    """How what the miniature's models draw is judged; <results>/judge/<dataset>/<engine>.json reads it."""
    engines: dict[Name, dict[str, Any]] = {}
    """What this scale changes in engines of config/engines; variants inherit it like everything else."""
    needs: Needs = Needs()
    """What jobs ask of the machine at this scale."""

    @model_validator(mode="after")
    def _makes_something(self) -> Self:
        if not (self.studies or self.exports):
            raise ValueError("studies: name at least one, or one of exports; else a run makes nothing")
        return self

    @field_validator("detectors", mode="before")
    @classmethod
    def _resolve_same(cls, values: Any) -> Any:
        """Give a detector that is the same as another one the settings of that one."""
        if not isinstance(values, dict):
            return values
        own = {name: it for name, it in values.items() if not (isinstance(it, dict) and "same_as" in it)}
        resolved = dict(own)
        for name in [name for name in values if name not in own]:
            other = values[name]["same_as"]
            if other not in own:
                known = suggest(str(other), own)
                raise ValueError(f"{name}.same_as: no detector {other!r} with settings of its own{known}")
            if beside := sorted(values[name].keys() - {"same_as"}):
                raise ValueError(
                    f"{name}: {', '.join(beside)} beside same_as; a detector is the same or another"
                )
            resolved[name] = values[name] | own[other]
        return {name: resolved[name] for name in values}
