"""All jobs of a run, counted from the configuration.

Snakemake needs one object in memory per job, and minutes for a hundred thousand of them. The shards of one
set are alike, so here they are one task. A test holds the counts to those of a dry run.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import SimpleNamespace

from gen4det.orchestration.fidelity_jobs import FidelityJobs
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import Project
from gen4det.orchestration.studies import REAL, Training


@dataclass(frozen=True)
class Task:
    """Jobs of one rule that are alike."""

    rule: str
    kind: str
    """Name of the kind of job in the scale file's `needs`."""
    jobs: int = 1
    dataset: str = ""
    engine: str = ""
    """The variant it is about: the one whose step it is; `filter` and `filter_page` are of every variant."""
    step: str = ""
    """Which of an engine's fit steps it is."""
    training: Training | None = None
    """What is trained or asked."""
    model: str = ""
    """Pretrained model that is downloaded."""
    merged: bool = False
    """Whether an export holds the real images, too."""


RULES = (
    "render", "photographs", "names", "download", "download_model", "subset", "fit", "plan", "generate",
    "label",
    "calibrate", "rate", "detect", "detect_real", "filter", "filter_page", "train", "predict", "measure",
    "loss_curve", "fit_curve", "measure_set", "fidelity", "table", "figure", "gallery",
    "category_gains", "layout_page", "label_quality", "label_table", "export",
)  # fmt: skip
"""Rules in the order of the work; those that train the miniature's models are not part of a study."""


def tasks(project: Project) -> list[Task]:
    """What makes all tables and figures of a scale from nothing, in the order of `RULES`."""
    sets = project.sets
    found = [*_data(project), *_drawing(project, sets), *_measuring(project, sets)]
    found += [*_training(project), *_plotting(project)]
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
    used = unique([*used, *(dataset for dataset, _ in project.sets)])
    whole = [known[name].of for name in used if known[name].source == "subset"]
    for name in unique([*whole, *used]):
        source = known[name].source
        yield Task({"miniature": "render"}.get(source, source), "data", dataset=name)


def _models(project: Project, found: Iterable[Task]) -> Iterator[Task]:
    """Models that must be downloaded for these tasks: what the rules say of the first job of each."""
    jobs = Jobs(project)
    readers = {"plan": jobs.models_of("draw"), "generate": jobs.models_of("draw")}
    readers |= {"fit": jobs.models_of("fit"), "label": jobs.models_of("label")}
    readers |= {"rate": jobs.rating_models, "calibrate": jobs.rating_models, "train": jobs.backbone}
    readers["fidelity"] = FidelityJobs(jobs).models
    needed = []
    for task in found:
        if task.rule in readers:
            row = task.training
            words = (
                {"detector": row.detector, "arm": row.recipe}
                if row
                else {"engine": task.engine, "step": task.step}
            )
            needed += readers[task.rule](SimpleNamespace(dataset=task.dataset, **words))
    for description in unique(needed):
        yield Task("download_model", "data", model=PurePath(description).parent.name)


def _drawing(project: Project, sets: list[tuple[str, str]]) -> Iterator[Task]:
    """Each step once for all variants that share it."""
    found = []
    for dataset, name in sets:
        variant, shards = project.engines[name], project.shards(name)
        for step in variant.steps.in_order:
            owner = variant.owner[step.name]
            if step.kind == "fit":
                found.append(Task("fit", "fit", 1, dataset, owner, step.name))
                if step.has_losses:
                    found.append(Task("fit_curve", "plot", 1, dataset, owner, step.name))
            elif step.kind == "label":
                found.append(Task("label", "label", shards, dataset, owner))
            else:
                found += [
                    Task("plan", "plan", 1, dataset, owner),
                    Task("generate", "generate", shards, dataset, owner),
                ]
    yield from unique(found)
    for dataset, name in sets:
        yield Task("filter", "filter", 1, dataset, name)


def _measuring(project: Project, sets: list[tuple[str, str]]) -> Iterator[Task]:
    """Each measurement once for all variants that share the images."""
    calibrated, rated = [], []
    for dataset, name in sets:
        engine = project.engines[name]
        if engine.filter.aesthetic.enabled:
            rated.append((dataset, engine.images))
            if engine.filter.aesthetic.threshold == "real-mean":
                calibrated.append(dataset)
        if engine.filter.measures:
            yield Task("filter_page", "plot", 1, dataset, name)
    yield from (Task("calibrate", "measure", 1, dataset) for dataset in unique(calibrated))
    yield from (Task("rate", "measure", project.shards(pair[1]), *pair) for pair in unique(rated))
    told = unique(pair for study in project.studies.values() if study.table.sets for pair in study.sets)
    yield from (Task("measure_set", "plot", 1, *pair) for pair in told)
    compared = unique(pair for study in project.studies for pair in project.measured_labels(study))
    yield from (Task("label_quality", "measure", 1, *pair) for pair in compared)
    judged = [(dataset, project.engines[name]) for dataset, name in told if project.judge(dataset)]
    for pair in unique((dataset, engine.labels_of) for dataset, engine in judged):
        yield Task("fidelity", "measure", 1, *pair)
    asked = [(it.training, it.images, it.seed) for it in project.asked()]
    for dataset in _shown(project):
        shown = project.config.fidelity.side_by_side[dataset]
        judged += [(dataset, project.engines[name]) for name in shown]
    for dataset, engine in judged:
        row = project.arms[dataset, project.judge(dataset), REAL]
        asked.append((row, engine.images, project.config.fidelity.seed))
    for training, images in {
        (it.key, images, seed): (it, images) for it, images, seed in reversed(asked)
    }.values():
        if images is None:
            yield Task("detect_real", "measure", 1, training.dataset, training=training)
        else:
            shards = project.shards(images)
            yield Task("detect", "measure", shards, training.dataset, images, training=training)


def _training(project: Project) -> Iterator[Task]:
    tabled = {
        (row.key, seed): row
        for study in project.studies.values()
        for row in study.trainings.values()
        for seed in study.seeds
    }
    trained = {(it.training.key, it.seed): it.training for it in project.asked()}
    trained |= {(row.key, seed): row for row, seed in project.read_by_steps()} | tabled
    for dataset in _shown(project):
        judge = project.arms[dataset, project.judge(dataset), REAL]
        trained.setdefault((judge.key, project.config.fidelity.seed), judge)
    yield from (Task("train", "train", 1, row.dataset, training=row) for row in trained.values())
    measured = {
        (row.key, study.on[name], seed): row
        for study in project.studies.values()
        for name, row in study.trainings.items()
        for seed in study.seeds
    }
    for rule, kind in (("predict", "predict"), ("measure", "evaluate")):
        yield from (Task(rule, kind, 1, on, training=row) for (_, on, _), row in measured.items())
    yield from (Task("loss_curve", "plot", 1, row.dataset, training=row) for row in tabled.values())


def _plotting(project: Project) -> Iterator[Task]:
    for name, study in project.studies.items():
        yield from (Task(rule, "plot") for rule in ("table", "figure"))
        if study.engines:
            yield Task("gallery", "plot")
        if study.categories:
            yield Task("category_gains", "plot")
        if project.measured_labels(name):
            yield Task("label_table", "plot")
    yield from (Task("layout_page", "plot", 1, dataset) for dataset in _shown(project))
    for it in project.config.exports:
        yield Task("export", "data", dataset=it.dataset, engine=it.engine, merged=it.merged)


def _shown(project: Project) -> list[str]:
    """Data sets with a page of layouts as several engines draw them."""
    return unique(dataset for study in project.studies for dataset in project.layout_pages(study))
