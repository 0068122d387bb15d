"""The settings of a run, put together from files: one scale, all engines, the studies of the run.

    config/config.yaml       the scale: where results go, data, detectors, seeds, what a job needs
    config/engines/*.yaml    engines and their variants; a variant inherits by `base:`
    config/studies/*.yaml    one table each: which arms, which published numbers

Nothing here imports torch: every job of a cluster run parses the Snakefile again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from gen4det.data.download_settings import ModelDownloads
from gen4det.data.settings import DatasetSettings
from gen4det.detection.settings import DetectorSettings
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engine_variants import Engine, load_engines, read_variants
from gen4det.errors import InputError
from gen4det.evaluation.settings import EvaluationSettings
from gen4det.evaluation.study_settings import ArmLabel, GallerySettings, LinePanel, StudySettings
from gen4det.file_hashes import model_paths
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.model_downloads import Downloads
from gen4det.settings import Settings, parse_settings, suggest
from gen4det.yaml_files import read_yaml, shown


def _unique(values: tuple) -> tuple:
    if len(set(values)) != len(values):
        raise ValueError("the same value twice")
    return values


Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$")]
"""Names become folders and wildcards: lower-case letters and digits, single - or _ between them."""

REAL: Name = "real"
"""Arm that is trained on the real images alone; filters ask its detector."""


# --- the scale ------------------------------------------------------------------------------------


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
    finetune: JobNeeds = JobNeeds(threads=4, mem_mb=8000)
    """Fitting the generator of an engine, where it has one to fit."""
    plan: JobNeeds = JobNeeds()
    """Deciding what to draw."""
    generate: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """Drawing one shard."""
    filter: JobNeeds = JobNeeds()
    """Choosing what is offered for training."""
    measure: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """What filters look at: scores of images, detections in them."""
    train: JobNeeds = JobNeeds(threads=4, mem_mb=8000)
    """Training one detector with one seed."""
    evaluate: JobNeeds = JobNeeds(threads=4, mem_mb=4000)
    """Prediction and average precision of one detector."""
    plot: JobNeeds = JobNeeds()
    """Tables, figures, galleries."""


class Config(Settings):
    """One scale: what config/config.yaml, config/paper.yaml or a file of your own holds."""

    scale: Name
    """Name of the scale; every table row says at which one it was run."""
    results: str
    """Folder of everything that is made, relative to the repository. Two scales never share one."""
    studies: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_unique)]
    """Tables to make; each names a file config/studies/<study>.yaml."""
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_unique)
    ] = (0,)
    """Seeds every detector is trained with; a table row is the mean over them."""
    run_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generated data: each image's own seed is a hash of this, its engine and its index."""
    shards: Annotated[int, Field(ge=1, le=99999)] = 1
    """Jobs that the generation of one synthetic set is cut into. Changes how many draw, not what is drawn."""
    foundation: FoundationSettings
    """Pretrained models the engines start from."""
    downloads: ModelDownloads = ModelDownloads()
    """Models that are downloaded before they are used."""
    datasets: dict[Name, DatasetSettings]
    """Detection data; stages see them by the name given here."""
    detectors: dict[Name, DetectorSettings]
    """Detectors and how they are trained at this scale."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How detections are measured."""
    foundation_training: FoundationTraining = FoundationTraining()
    """How the miniature's own foundation models are trained; `miniature_foundation` alone reads it."""
    engines: dict[Name, dict[str, Any]] = {}
    """What this scale changes in engines of config/engines; variants inherit it like everything else."""
    needs: Needs = Needs()
    """What jobs ask of the machine at this scale."""


class Arm(ArmLabel):
    """One row of a table: one recipe of training data."""

    real: bool = True
    """Whether the real training images are trained on. false: synthetic ones alone."""
    synthetic: Annotated[tuple[Name, ...], AfterValidator(_unique)] = ()
    """Engines whose images are trained on as well."""
    train: dict[str, Any] = {}
    """What this arm changes in the settings of the detector, e.g. {synthetic_batches: 0.2}."""
    dataset: Name | None = None
    """Data set of this row where it is not the study's, e.g. a subset of it."""
    arm: Name | None = None
    """Name of the recipe, i.e. the folder of its results; null: the name of the row. Rows over several data
    sets need names of their own and may still share a recipe."""


class Study(Settings):
    """One table, its figure and its page of generated images: a file config/studies/<study>.yaml."""

    title: str
    """Heading of the table."""
    dataset: Name
    """Data set, by its name in the scale file."""
    detector: Name
    """Detector, by its name in the scale file."""
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    """Rows in the order of the table."""
    baseline: Name = "real"
    """The row the others are compared with. Of rows over several data sets the recipe: each is compared with
    the row of its own data set."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns, e.g. mask_APr: box_ or mask_ and a name of metrics.json."""
    published: dict[str, Any] = {}
    """Numbers the papers print: {source: text, <arm>: {<metric>: number, ...}, ...}."""
    lines: tuple[LinePanel, ...] = ()
    """Draw the figure as lines; a panel is {x: label of the axis, lines: {<name>: [[<x>, <arm>], ...]}}."""
    gallery: dict[str, Any] = {}
    """What the page of generated images shows: kept, rejected, columns, seed."""


@dataclass(frozen=True)
class Training:
    """What one row of a table trains, but for the seed."""

    dataset: str
    detector: str
    arm: str
    """Name of the recipe: the folder of its results."""
    real: bool
    synthetic: tuple[str, ...]
    settings: DetectorSettings
    """Those of the detector with what the arm changes."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Where its results lie."""
        return self.dataset, self.detector, self.arm


@dataclass(frozen=True)
class CheckedStudy:
    """A study whose references resolve, cut into what its stages read."""

    trainings: dict[str, Training]
    """By row, in the order of the table."""
    table: StudySettings
    gallery: GallerySettings

    @property
    def sets(self) -> list[tuple[str, str]]:
        """(data set, engine) of all synthetic sets that some row uses, in the order of the rows."""
        rows = self.trainings.values()
        return list(dict.fromkeys((row.dataset, engine) for row in rows for engine in row.synthetic))

    @property
    def engines(self) -> list[str]:
        """All engines whose images some row uses, in the order of the rows."""
        return list(dict.fromkeys(engine for _, engine in self.sets))


@dataclass(frozen=True)
class Project:
    """A checked configuration: every reference in it resolves."""

    root: Path
    config: Config
    engines: dict[str, Engine]
    studies: dict[str, CheckedStudy]

    @cached_property
    def arms(self) -> dict[tuple[str, str, str], Training]:
        """What is trained for each (dataset, detector, arm): rows of tables, detectors that filters ask."""
        rows = {row.key: row for study in self.studies.values() for row in study.trainings.values()}
        return {row.key: row for row in self.asked_by_filters()} | rows

    def asked_by_filters(self) -> Iterator[Training]:
        """The arm `real` of every data set and detector that an agreement filter asks, tabled or not."""
        for dataset, name in dict.fromkeys(pair for study in self.studies.values() for pair in study.sets):
            agreement = self.engines[name].filter.agreement
            if agreement.enabled:
                settings = self.config.detectors[agreement.detector]
                yield Training(dataset, agreement.detector, REAL, True, (), settings)


# --- checking --------------------------------------------------------------------------------------


def load_project(values: dict, *, source: str, root: str | Path) -> Project:
    """Check a scale file's values and everything they refer to.

    Args:
        values: the mapping of a scale file, command-line changes included.
        source: name of the scale file in errors.
        root: the repository; config/engines and config/studies are looked up in it.

    Raises:
        InputError: one line for the first problem.
    """
    root = Path(root)
    config = parse_settings(Config, values, source=source)
    for name, detector in config.detectors.items():
        if not (root / detector.config).is_file():
            raise InputError(f"{source}: detectors.{name}.config: no such file {detector.config}")
    _check_subsets(config, source=source)
    variants = read_variants(root / "config" / "engines")
    studies = {name: _load_study(name, config, variants, source=source, root=root) for name in config.studies}
    _check_arms(studies)
    used = [engine for study in studies.values() for engine in study.engines]
    engines = load_engines(used, config.engines, variants, source=source)
    _check_filters(engines, config, variants, source=source)
    _check_models(engines, config, source=source, root=root)
    engines = {name: _asking_folder(engine, config) for name, engine in engines.items()}
    project = Project(root, config, engines, studies)
    _check_asked(project)
    return project


def _check_subsets(config: Config, *, source: str) -> None:
    """Every subset is one of a whole data set of this scale."""
    whole = [name for name, data in config.datasets.items() if data.source != "subset"]
    for name, data in config.datasets.items():
        if data.source == "subset" and data.of not in whole:
            known = suggest(data.of, whole)
            raise InputError(f"{source}: datasets.{name}.of: no whole data set {data.of!r}{known}")


def _check_models(engines: dict[str, Engine], config: Config, *, source: str, root: Path) -> None:
    """Models in the folder of downloads are ones that the registry knows."""
    downloads = Downloads(config.downloads, root)
    for name, model in config.foundation:
        downloads.check(model and model.path, f"{source}: foundation.{name}.path")
    for name, engine in engines.items():
        for path in model_paths(engine.settings.model_dump(mode="json")):
            downloads.check(path, f"engine {name}")
    for name, detector in config.detectors.items():
        downloads.check(detector.backbone_weights, f"{source}: detectors.{name}.backbone_weights")


# --- filters --------------------------------------------------------------------------------------


def _check_filters(engines: dict[str, Engine], config: Config, variants: dict, *, source: str) -> None:
    """What the filters of this run refer to is there."""
    for name, engine in engines.items():
        where = f"{variants[name][0]}: {name}.filter"
        detector = engine.filter.agreement.detector
        if engine.filter.agreement.enabled and detector not in config.detectors:
            known = suggest(detector, config.detectors)
            raise InputError(f"{where}.agreement.detector: {detector!r} is not a detector of {source}{known}")
        for model in ("clip", "aesthetic"):
            if engine.filter.aesthetic.enabled and getattr(config.foundation, model) is None:
                raise InputError(f"{where}.aesthetic: needs foundation.{model}, which {source} does not give")


def _check_asked(project: Project) -> None:
    """A detector that filters ask has seen real images alone, whatever a table means by its name."""
    for asked in project.asked_by_filters():
        row = project.arms[asked.key]
        if row.synthetic or not row.real:
            dataset, detector, arm = row.key
            raise InputError(
                f"arm {arm!r} of {dataset} and {detector}: an agreement filter asks it, "
                "so it must be trained on the real images alone; give the other recipe another name"
            )


# --- studies --------------------------------------------------------------------------------------


def _load_study(name: str, config: Config, variants: dict, *, source: str, root: Path) -> CheckedStudy:
    folder = root / "config" / "studies"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = suggest(name, (file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"{source}: studies: no file {shown(path)}{known}")
    file = shown(path)
    study = parse_settings(Study, read_yaml(path), source=file)
    if study.detector not in config.detectors:
        known = suggest(study.detector, config.detectors)
        raise InputError(f"{file}: detector: {study.detector!r} is not a detector of {source}{known}")
    for row, arm in study.arms.items():
        dataset, key = (arm.dataset, f"arms.{row}.dataset") if arm.dataset else (study.dataset, "dataset")
        if dataset not in config.datasets:
            known = suggest(dataset, config.datasets)
            raise InputError(f"{file}: {key}: {dataset!r} is not a data set of {source}{known}")
        for engine in arm.synthetic:
            if engine not in variants:
                known = suggest(engine, variants)
                raise InputError(f"{file}: arms.{row}.synthetic: no such engine {engine!r}{known}")
    trainings = {row: _training(study, row, config, file=file, root=root) for row in study.arms}
    run = {"scale": config.scale, "seeds": config.seeds}
    labels = {row: _label(study, row, trainings, file=file) for row in study.arms}
    table = study.model_dump(exclude={"gallery", "arms"}) | run | {"arms": labels}
    gallery = {"title": study.title, "scale": config.scale} | study.gallery
    return CheckedStudy(
        trainings,
        parse_settings(StudySettings, table, source=file),
        parse_settings(GallerySettings, gallery, source=f"{file}: gallery"),
    )


def _training(study: Study, row: str, config: Config, *, file: str, root: Path) -> Training:
    arm = study.arms[row]
    source = f"{file}: arms.{row}"
    if not (arm.real or arm.synthetic):
        raise InputError(f"{source}: neither real nor synthetic images to train on")
    values = config.detectors[study.detector].model_dump() | arm.train
    settings = parse_settings(DetectorSettings, values, source=f"{source}.train")
    if not (root / settings.config).is_file():
        raise InputError(f"{source}.train.config: no such file {settings.config}")
    dataset = arm.dataset or study.dataset
    detector = _folder(study.detector, config)
    return Training(dataset, detector, arm.arm or row, arm.real, arm.synthetic, settings)


def _asking_folder(engine: Engine, config: Config) -> Engine:
    """The engine, its filter asking for a detector by the name of its folder."""
    agreement = engine.filter.agreement
    if not agreement.enabled:
        return engine
    asked = agreement.model_copy(update={"detector": _folder(agreement.detector, config)})
    return replace(engine, filter=engine.filter.model_copy(update={"agreement": asked}))


def _folder(detector: str, config: Config) -> str:
    """The first detector of equal settings, in whose folder all of them train."""
    return next(name for name, it in config.detectors.items() if it == config.detectors[detector])


def _label(study: Study, row: str, trainings: dict[str, Training], *, file: str) -> dict:
    """What the table reads of an arm: its own words, and the row it is compared with."""
    label = study.arms[row].model_dump(include=set(ArmLabel.model_fields))
    alike = [other for other, it in trainings.items() if it.dataset == trainings[row].dataset]
    recipes = {trainings[other].arm: other for other in reversed(alike)}
    wanted = label["baseline"] or study.baseline
    baseline = wanted if label["baseline"] or wanted in alike else recipes.get(wanted)
    if baseline not in study.arms:
        where = f"arms.{row}.baseline" if label["baseline"] else "baseline"
        known = suggest(wanted, (set(study.arms) if label["baseline"] else {*alike, *recipes}) - {wanted})
        data = "" if label["baseline"] else f" on {trainings[row].dataset}"
        raise InputError(f"{file}: {where}: no such arm {wanted!r}{data}{known}")
    return label | {"baseline": baseline}


def _check_arms(studies: dict[str, CheckedStudy]) -> None:
    """An arm's name is a folder: for one data set and detector it must mean one recipe."""
    first_seen: dict[tuple[str, str, str], tuple[str, Training]] = {}
    for study_name, study in studies.items():
        for row, training in study.trainings.items():
            other, first = first_seen.setdefault(training.key, (study_name, training))
            if first != training:
                raise InputError(
                    f"config/studies/{study_name}.yaml: arms.{row}: means another recipe than in "
                    f"config/studies/{other}.yaml; give it another name"
                )
