"""Studies: one table each, with the arms (rows) and the training of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings, parse_settings, suggest
from gen4det.core.yaml_files import read_yaml, shown
from gen4det.detection.settings import DetectorSettings
from gen4det.evaluation.study_settings import ArmLabel, GallerySettings, LinePanel, StudySettings
from gen4det.orchestration.scale import NAME, Config, Name, unique

REAL: Name = "real"
"""Arm that is trained on the real images alone; filters ask its detector."""

ELSEWHERE = {"gallery", "arms", "categories", "generated", "question", "label_quality"}
"""Keys of a study that its table does not read as they stand."""


class Arm(ArmLabel):
    """One row of a table: what a detector is trained on."""

    real: bool = True
    """Whether the real training images are trained on. false: synthetic ones alone."""
    synthetic: Annotated[tuple[Name, ...], AfterValidator(unique)] = ()
    """Engines whose images are trained on as well."""
    train: dict[str, Any] = {}
    """What this arm changes in the settings of the detector, e.g. {synthetic_batches: 0.2}."""
    scales: tuple[Name, ...] = ()
    """Scales at which there is this row, e.g. [miniature]; none: all."""
    detector: Name | None = None
    """Detector of this row where it is not the study's; such a row is compared with those of its detector."""
    dataset: Name | None = None
    """Data set of this row where it is not the study's, e.g. a subset of it."""
    on: Annotated[str, Field(pattern=rf"^$|{NAME}")] = ""
    """Data set whose validation images the detector is measured on; empty: that of the row. Of its categories
    those count that the detector knows by name."""
    recipe: Name | None = None
    """Name of the folder of its results; null: the name of the row. Rows of one table differ in their names;
    those that train the same way on several data sets may name one recipe."""


class Study(Settings):
    """One table, its figure and its page of generated images: a file config/studies/<study>.yaml."""

    title: str
    """Heading of the table."""
    question: str = ""
    """What the study asks, in a sentence or two, for the page on it."""
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
    """Numbers the papers print: {source: text, <arm>: {<metric>: number, ...}, ...}. A name that is no arm's
    brings a label: a row that a paper prints and nobody trains here."""
    lines: tuple[LinePanel, ...] = ()
    """Draw the figure as lines; a panel is {x: label of the axis, lines: {<name>: [[<x>, <arm>], ...]}}."""
    categories: bool = False
    """Whether there is a second table and figure: every category, and what each row gains in it."""
    generated: bool = False
    """Whether the table also says of the sets that each row trains on how many images they offer, what share
    of their labels was rejected, what a detector of real images makes of them, and what they cost."""
    label_quality: bool = False
    """Whether there is a second table and figure: precision and recall of the labels of engines that find
    novel categories, along the epochs of their fit. In the miniature alone, whose scenes have a truth."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(unique)] = ()
    """Seeds every detector of this table is trained with; none: those of the scale."""
    gallery: dict[str, Any] = {}
    """What the page of generated images shows: kept, rejected, columns, seed."""


@dataclass(frozen=True)
class Training:
    """The training behind one row of a table, the same for all seeds."""

    dataset: str
    detector: str
    recipe: str
    """Name of the folder of its results."""
    real: bool
    synthetic: tuple[str, ...]
    settings: DetectorSettings
    """Those of the detector with what the arm changes."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Where its results lie."""
        return self.dataset, self.detector, self.recipe


@dataclass(frozen=True)
class CheckedStudy:
    """A study whose references resolve, separated into what each stage reads."""

    trainings: dict[str, Training]
    """By row, in the order of the table."""
    on: dict[str, str]
    """Data set that each row is measured on."""
    table: StudySettings
    gallery: GallerySettings
    categories: bool = False
    """Whether categories are shown one by one."""
    question: str = ""
    """What it asks, in words."""
    label_quality: bool = False
    """Whether labels are compared with the truth."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that all its detectors are trained with."""
        return self.table.seeds

    @property
    def sets(self) -> list[tuple[str, str]]:
        """(data set, engine) of all synthetic sets that some row uses, in the order of the rows."""
        rows = self.trainings.values()
        return list(dict.fromkeys((row.dataset, engine) for row in rows for engine in row.synthetic))

    @property
    def engines(self) -> list[str]:
        """All engines whose images some row uses, in the order of the rows."""
        return list(dict.fromkeys(engine for _, engine in self.sets))


def load_study(name: str, config: Config, variants: dict, *, source: str, root: Path) -> CheckedStudy:
    folder = root / "config" / "studies"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = suggest(name, (file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"{source}: studies: no file {shown(path)}{known}")
    file = shown(path)
    study = parse_settings(Study, read_yaml(path), source=file)
    here = {row: arm for row, arm in study.arms.items() if not arm.scales or config.scale in arm.scales}
    wanted = config.arms.get(name) or tuple(here)
    for row in wanted:
        if row not in here:
            known = suggest(row, here)
            raise InputError(f"{source}: arms.{name}: no row {row!r} at this scale in {file}{known}")
    here = {row: arm for row, arm in here.items() if row in wanted}
    if not here:
        raise InputError(f"{file}: arms: none of them has a row at the scale {config.scale!r} of {source}")
    left_out = study.arms.keys() - here.keys()
    published = {key: value for key, value in study.published.items() if key not in left_out}
    study = study.model_copy(update={"arms": here, "published": published})
    for row, arm in study.arms.items():
        named, key = (arm.detector, f"arms.{row}.detector") if arm.detector else (study.detector, "detector")
        if named not in config.detectors:
            known = suggest(named, config.detectors)
            raise InputError(f"{file}: {key}: {named!r} is not a detector of {source}{known}")
        dataset, key = (arm.dataset, f"arms.{row}.dataset") if arm.dataset else (study.dataset, "dataset")
        if dataset not in config.datasets:
            known = suggest(dataset, config.datasets)
            raise InputError(f"{file}: {key}: {dataset!r} is not a data set of {source}{known}")
        if arm.on and arm.on not in config.datasets:
            known = suggest(arm.on, config.datasets)
            raise InputError(f"{file}: arms.{row}.on: {arm.on!r} is not a data set of {source}{known}")
        for engine in arm.synthetic:
            if engine not in variants:
                known = suggest(engine, variants)
                raise InputError(f"{file}: arms.{row}.synthetic: no such engine {engine!r}{known}")
    trainings = {row: _training(study, row, config, file=file, root=root) for row in study.arms}
    run = {"scale": config.scale, "seeds": study.seeds or config.seeds}
    on = {row: arm.on or trainings[row].dataset for row, arm in study.arms.items()}
    labels = {row: _label(study, row, trainings, on, config, file=file) for row in study.arms}
    if study.generated:
        run["sets"] = {
            row: [f"{it.dataset}/{engine}" for engine in it.synthetic] for row, it in trainings.items()
        }
    table = study.model_dump(exclude=ELSEWHERE) | run | {"arms": labels}
    gallery = {"title": study.title, "scale": config.scale} | study.gallery
    return CheckedStudy(
        trainings,
        on,
        parse_settings(StudySettings, table, source=file),
        parse_settings(GallerySettings, gallery, source=f"{file}: gallery"),
        study.categories,
        study.question,
        study.label_quality,
    )


def _training(study: Study, row: str, config: Config, *, file: str, root: Path) -> Training:
    arm = study.arms[row]
    source = f"{file}: arms.{row}"
    if not (arm.real or arm.synthetic):
        raise InputError(f"{source}: neither real nor synthetic images to train on")
    name = arm.detector or study.detector
    values = config.detectors[name].model_dump() | arm.train
    settings = parse_settings(DetectorSettings, values, source=f"{source}.train")
    if not (root / settings.config).is_file():
        raise InputError(f"{source}.train.config: no such file {settings.config}")
    dataset = arm.dataset or study.dataset
    detector = shared_folder(name, config)
    return Training(dataset, detector, arm.recipe or row, arm.real, arm.synthetic, settings)


def shared_folder(detector: str, config: Config) -> str:
    """The detector that one is the `same_as`, in whose folder both are trained; without such, itself."""
    return config.detectors[detector].same_as or detector


def _label(
    study: Study, row: str, trainings: dict[str, Training], on: dict[str, str], config: Config, *, file: str
) -> dict:
    """What the table reads of an arm: its own words, and the row it is compared with."""
    label = study.arms[row].model_dump(include=set(ArmLabel.model_fields))
    label["on"] = on[row] if on[row] != trainings[row].dataset else ""
    seen = {name: _validation(place, config) for name, place in on.items()}
    data = (trainings[row].dataset, trainings[row].detector, on[row])
    alike = [other for other, it in trainings.items() if (it.dataset, it.detector, on[other]) == data]
    recipes = {trainings[other].recipe: other for other in reversed(alike)}
    wanted = label["baseline"] or study.baseline
    baseline = wanted if label["baseline"] or wanted in alike else recipes.get(wanted)
    if baseline not in study.arms:
        where = f"arms.{row}.baseline" if label["baseline"] else "baseline"
        known = suggest(wanted, (set(study.arms) if label["baseline"] else {*alike, *recipes}) - {wanted})
        where_else = f", measured on {on[row]}" if on[row] != trainings[row].dataset else ""
        data = "" if label["baseline"] else f" on {trainings[row].dataset}{where_else}"
        raise InputError(f"{file}: {where}: no such arm {wanted!r}{data}{known}")
    if seen[baseline] != seen[row]:
        raise InputError(
            f"{file}: arms.{row}.baseline: {baseline!r} is measured on {on[baseline]}, this row on {on[row]}"
        )
    return label | {"baseline": baseline}


def _validation(dataset: str, config: Config) -> str:
    """The data set whose validation images these are: a subset has those of the whole."""
    data = config.datasets[dataset]
    return data.of if data.source == "subset" else dataset


def check_arms(studies: dict[str, CheckedStudy]) -> None:
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
