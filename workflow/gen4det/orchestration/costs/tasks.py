"""All jobs of a run, counted from the configuration.

Snakemake needs one object in memory per job, and minutes for a hundred thousand of them. The shards of one
set are alike, so here they are one task. A test holds the counts to those of a dry run.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import SimpleNamespace

from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import Project
from gen4det.orchestration.studies import Training


@dataclass(frozen=True)
class Task:
    """Jobs of one rule that are alike."""

    rule: str
    kind: str
    """Name of the kind of job in the scale file's `needs`."""
    jobs: int = 1
    dataset: str = ""
    engine: str = ""
    """The variant it is about: the one that draws the images, except for `filter` and `filter_page`."""
    training: Training | None = None
    """What is trained or asked."""
    model: str = ""
    """Pretrained model that is downloaded."""


RULES = (
    "render", "photographs", "download", "download_model", "subset", "finetune", "plan", "generate",
    "calibrate", "rate", "detect", "filter", "filter_page", "train", "predict",
    "measure", "table", "figure", "gallery",
)  # fmt: skip
"""Rules in the order of the work; those that train the miniature's models are not part of a study."""


def tasks(project: Project) -> list[Task]:
    """What makes all tables and figures of a scale from nothing, in the order of `RULES`."""
    sets = unique(pair for study in project.studies.values() for pair in study.sets)
    found = [*_data(project), *_drawing(project, sets), *_measuring(project, sets)]
    found += [*_training(project, sets), *_plotting(project)]
    found += _models(project, found)
    return sorted(found, key=lambda task: RULES.index(task.rule))


def jobs_by_rule(found: Iterable[Task]) -> dict[str, int]:
    """Number of jobs of each rule that has any."""
    counts: Counter[str] = Counter()
    for task in found:
        counts[task.rule] += task.jobs
    return dict(counts)


def unique(values: Iterable) -> list:
    """Values without repetition, in order."""
    return list(dict.fromkeys(values))


def _data(project: Project) -> Iterator[Task]:
    known = project.config.datasets
    trained = [dataset for dataset, _, _ in project.arms]
    used = unique([*trained, *(on for study in project.studies.values() for on in study.on.values())])
    whole = [known[name].of for name in used if known[name].source == "subset"]
    for name in unique([*whole, *used]):
        source = known[name].source
        yield Task({"miniature": "render"}.get(source, source), "data", dataset=name)


def _models(project: Project, found: Iterable[Task]) -> Iterator[Task]:
    """Models that must be downloaded for these tasks: what the rules say of the first job of each."""
    jobs = Jobs(project)
    readers = {"plan": jobs.drawing_models, "generate": jobs.drawing_models, "finetune": jobs.drawing_models}
    readers |= {"rate": jobs.rating_models, "calibrate": jobs.rating_models, "train": jobs.backbone}
    needed = []
    for task in found:
        if task.rule in readers:
            row = task.training
            words = {"detector": row.detector, "arm": row.arm} if row else {"engine": task.engine}
            needed += readers[task.rule](SimpleNamespace(dataset=task.dataset, **words))
    for description in unique(needed):
        yield Task("download_model", "data", model=PurePath(description).parent.name)


def _drawing(project: Project, sets: list[tuple[str, str]]) -> Iterator[Task]:
    for dataset, images in unique((dataset, project.engines[name].images) for dataset, name in sets):
        if project.engines[images].settings.needs_fit:
            yield Task("finetune", "finetune", 1, dataset, images)
        yield Task("plan", "plan", 1, dataset, images)
        yield Task("generate", "generate", project.config.shards, dataset, images)
    for dataset, name in sets:
        yield Task("filter", "filter", 1, dataset, name)


def _measuring(project: Project, sets: list[tuple[str, str]]) -> Iterator[Task]:
    """Each measurement once for all variants that share the images."""
    calibrated, rated, asked = [], [], []
    for dataset, name in sets:
        engine = project.engines[name]
        aesthetic, agreement = engine.filter.aesthetic, engine.filter.agreement
        if aesthetic.enabled:
            rated.append((dataset, engine.images))
            if aesthetic.threshold == "real-mean":
                calibrated.append(dataset)
        if agreement.enabled:
            asked.append((dataset, engine.images, agreement.detector, agreement.seed))
        if engine.filter.measures:
            yield Task("filter_page", "plot", 1, dataset, name)
    shards = project.config.shards
    yield from (Task("calibrate", "measure", 1, dataset) for dataset in unique(calibrated))
    yield from (Task("rate", "measure", shards, *pair) for pair in unique(rated))
    yield from (Task("detect", "measure", shards, dataset, images) for dataset, images, *_ in unique(asked))


def _training(project: Project, sets: list[tuple[str, str]]) -> Iterator[Task]:
    rows = (row for study in project.studies.values() for row in study.trainings.values())
    tabled = {(row.key, seed): row for row in rows for seed in project.config.seeds}
    trained = {(row.key, seed): row for row, seed in _asked(project, sets)} | tabled
    yield from (Task("train", "train", 1, row.dataset, training=row) for row in trained.values())
    measured = {
        (row.key, study.on[name], seed): row
        for study in project.studies.values()
        for name, row in study.trainings.items()
        for seed in project.config.seeds
    }
    for rule, kind in (("predict", "predict"), ("measure", "evaluate")):
        yield from (Task(rule, kind, 1, on, training=row) for (_, on, _), row in measured.items())


def _asked(project: Project, sets: list[tuple[str, str]]) -> Iterator[tuple[Training, int]]:
    """Detectors of real objects that filters ask, with their seeds."""
    rows = {(row.dataset, row.detector): row for row in project.asked_by_filters()}
    for dataset, name in sets:
        agreement = project.engines[name].filter.agreement
        if agreement.enabled:
            yield rows[dataset, agreement.detector], agreement.seed


def _plotting(project: Project) -> Iterator[Task]:
    for study in project.studies.values():
        yield from (Task(rule, "plot") for rule in ("table", "figure"))
        if study.engines:
            yield Task("gallery", "plot")
