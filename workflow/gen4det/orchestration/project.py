"""The checked configuration, put together from files: one scale, all engines, the studies of the run.

    config/config.yaml       the scale: where results go, data, detectors, seeds, what a job needs
    config/engines/*.yaml    engines and their variants; a variant inherits by `base:`
    config/studies/*.yaml    one table each: which arms, which published numbers

Nothing here imports torch: every job of a cluster run parses the Snakefile again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings, suggest
from gen4det.engines.settings import TrainedDetector
from gen4det.engines.steps import ON_REAL_IMAGES
from gen4det.orchestration.category_splits import check_splits
from gen4det.orchestration.downloads import Downloads
from gen4det.orchestration.fidelity_jobs import check_fidelity
from gen4det.orchestration.hashes import model_paths
from gen4det.orchestration.names import check_exports, check_names, check_tables
from gen4det.orchestration.scale import Config
from gen4det.orchestration.studies import REAL, CheckedStudy, Training, check_arms, load_study, shared_folder
from gen4det.orchestration.variants import Variant, load_engines, read_variants


@dataclass(frozen=True)
class Project:
    """A checked configuration: every reference in it resolves."""

    root: Path
    config: Config
    engines: dict[str, Variant]
    studies: dict[str, CheckedStudy]

    @cached_property
    def arms(self) -> dict[tuple[str, str, str], Training]:
        """What is trained for each (dataset, detector, arm): rows of tables, detectors that are asked."""
        rows = {row.key: row for study in self.studies.values() for row in study.trainings.values()}
        wanted = [self._of_real_images(dataset, judge) for dataset, judge in self.judges]
        wanted += [*(asked.training for asked in self.asked()), *(row for row, _ in self.read_by_steps())]
        return {row.key: row for row in wanted} | rows

    @property
    def sets(self) -> list[tuple[str, str]]:
        """(data set, variant) of all synthetic sets of all studies and exports."""
        tabled = [pair for study in self.studies.values() for pair in study.sets]
        return list(dict.fromkeys(tabled + [(it.dataset, it.engine) for it in self.config.exports]))

    def measured_labels(self, study: str) -> list[tuple[str, str]]:
        """(data set, variant) of the sets of a study whose labels are compared with the truth: the study
        asks for it, they are the miniature's, and their engine can."""
        known, asked = self.config.datasets, self.studies[study]
        found = []
        for dataset, name in asked.sets if asked.label_quality else ():
            whole = known[dataset].of if known[dataset].source == "subset" else dataset
            if known[whole].source == "miniature" and self.engines[name].settings.labels_measured:
                found.append((dataset, name))
        return found

    @property
    def judged_sets(self) -> list[tuple[str, str]]:
        """Of these, in their order, those whose fidelity is measured."""
        return [(dataset, engine) for dataset, engine in self.sets if self.judge(dataset)]

    @property
    def judges(self) -> list[tuple[str, str]]:
        """(data set, detector) that measure them."""
        return list(dict.fromkeys((dataset, self.judge(dataset)) for dataset, _ in self.judged_sets))

    def judge(self, dataset: str) -> str | None:
        """Folder of the detector that measures the fidelity of sets of a data set; None: nobody does."""
        if self.config.fidelity is None:
            return None
        known, data = self.config.fidelity.detectors, self.config.datasets[dataset]
        detector = known.get(dataset) or known.get(getattr(data, "of", None))
        return detector and shared_folder(detector, self.config)

    def layout_pages(self, study: str) -> list[str]:
        """Data sets whose layouts a study shows as several engines draw them: it has rows of all of these."""
        if self.config.fidelity is None:
            return []
        sets, shown = set(self.studies[study].sets), self.config.fidelity.side_by_side.items()
        return [
            dataset
            for dataset, engines in shown
            if engines and self.judge(dataset) and {(dataset, it) for it in engines} <= sets
        ]

    def shards(self, engine: str) -> int:
        """Number of shards of the images of a variant, drawn by itself or by the one it shares them with."""
        return self.config.engine_shards.get(self.engines[engine].images, self.config.shards)

    def asked(self) -> Iterator["Asked"]:
        """Detectors of real images that filters and steps of this run use, in a table or not."""
        for dataset, name in self.sets:
            variant = self.engines[name]
            agreement = variant.filter.agreement
            if agreement.enabled:
                yield self._asked(dataset, variant.images, agreement, f"{name}.filter.agreement")
            for step in variant.steps.in_order:
                for read in step.detections:
                    if (question := getattr(variant.settings, read.setting)) is not None:
                        images = None if read.on == ON_REAL_IMAGES else variant.owner[read.on]
                        yield self._asked(dataset, images, question, f"{name}.{read.setting}")

    def _asked(self, dataset: str, images: str | None, question: Any, by: str) -> "Asked":
        row = self._of_real_images(dataset, question.detector)
        return Asked(row, images, question.seed, question.max_per_image, by)

    def read_by_steps(self) -> Iterator[tuple[Training, int]]:
        """Detectors of real images, with their seeds, whose weights steps of this run read."""
        for dataset, name in self.sets:
            settings = self.engines[name].settings
            for step in self.engines[name].steps.in_order:
                for field in step.detectors:
                    read = getattr(settings, field)
                    yield self.trained(dataset, read), read.seed

    def trained(self, dataset: str, read: TrainedDetector) -> Training:
        """The training of a detector whose weights a step reads.

        Args:
            dataset: the one that is drawn for.
        """
        return self._of_real_images(read.dataset or dataset, read.detector)

    def _of_real_images(self, dataset: str, name: str) -> Training:
        detector = shared_folder(name, self.config)
        return Training(dataset, detector, REAL, True, (), self.config.detectors[detector])


@dataclass(frozen=True)
class Asked:
    """A detector of real images whose detections somebody reads."""

    training: Training
    images: str | None
    """The variant whose images it looks at; None: the real training images of its data set."""
    seed: int
    max_per_image: int
    by: str
    """Key of the settings that asks, for errors."""


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
    _check_subsets(config, source=source, root=root)
    variants = read_variants(root / "config" / "engines")
    studies = {name: load_study(name, config, variants, source=source, root=root) for name in config.studies}
    check_arms(studies)
    check_splits(config, studies, source=source, root=root)
    check_exports(config, variants, source=source)
    check_tables(config, studies, source=source)
    used = [engine for study in studies.values() for engine in study.engines]
    used += [it.engine for it in config.exports if it.engine not in used]
    engines = load_engines(used, config.engines, variants, source=source)
    _check_shards(engines, config, variants, source=source)
    _check_references(engines, config, variants, source=source)
    _check_models(engines, config, source=source, root=root)
    drawn_for = {dataset for study in studies.values() for dataset, _ in study.sets}
    check_fidelity(config, variants, drawn_for, source=source, downloads=Downloads(config.downloads, root))
    engines = {name: _asking_folder(engine, config) for name, engine in engines.items()}
    project = Project(root, config, engines, studies)
    _check_asked(project)
    check_names(config, engines, project.sets, source=source)
    return project


def _check_subsets(config: Config, *, source: str, root: Path) -> None:
    """Every subset is one of a whole data set of this scale, and its file of categories is there."""
    whole = [name for name, data in config.datasets.items() if data.source not in ("subset", "names")]
    for name, data in config.datasets.items():
        if data.source == "subset" and data.of not in whole:
            known = suggest(data.of, whole)
            raise InputError(f"{source}: datasets.{name}.of: no whole data set {data.of!r}{known}")
        if data.source == "subset" and data.split is not None and not (root / data.split).is_file():
            raise InputError(f"{source}: datasets.{name}.split: no such file {data.split}")


def _check_shards(engines: dict[str, Variant], config: Config, variants: dict, *, source: str) -> None:
    """Numbers of shards are given to variants that draw; whether they do is known of those of this run."""
    for name in config.engine_shards:
        if name not in variants:
            raise InputError(f"{source}: engine_shards.{name}: no such engine{suggest(name, variants)}")
        drawer = engines[name].images if name in engines else name
        if drawer != name:
            raise InputError(
                f"{source}: engine_shards.{name}: its images are those of {drawer}; name that one"
            )


def _check_models(engines: dict[str, Variant], config: Config, *, source: str, root: Path) -> None:
    """Models in the folder of downloads are ones that the registry knows."""
    downloads = Downloads(config.downloads, root)
    for name, model in config.foundation:
        downloads.check(model and model.path, f"{source}: foundation.{name}.path")
    for name, engine in engines.items():
        for path in model_paths(engine.settings.model_dump(mode="json")):
            downloads.check(path, f"engine {name}")
    for name, detector in config.detectors.items():
        downloads.check(detector.backbone_weights, f"{source}: detectors.{name}.backbone_weights")
        if detector.diffusion:
            downloads.check(detector.diffusion.path, f"{source}: detectors.{name}.diffusion.path")


# --- references --------------------------------------------------------------------------------------


def _check_references(engines: dict[str, Variant], config: Config, variants: dict, *, source: str) -> None:
    """Detectors and models that filters and steps of this run refer to are there."""
    for name, engine in engines.items():
        where = f"{variants[name][0]}: {name}.filter"
        detector = engine.filter.agreement.detector
        if engine.filter.agreement.enabled and detector not in config.detectors:
            known = suggest(detector, config.detectors)
            raise InputError(f"{where}.agreement.detector: {detector!r} is not a detector of {source}{known}")
        for step in engine.steps.in_order:
            for read in step.detections:
                question = getattr(engine.settings, read.setting)
                if question is not None and question.detector not in config.detectors:
                    known = suggest(question.detector, config.detectors)
                    raise InputError(
                        f"{variants[name][0]}: {name}.{read.setting}.detector: {question.detector!r} is "
                        f"not a detector of {source}{known}"
                    )
            for field in step.detectors:
                read = getattr(engine.settings, field)
                for kind, given in (("detector", read.detector), ("dataset", read.dataset)):
                    known = getattr(config, f"{kind}s")
                    if given is not None and given not in known:
                        raise InputError(
                            f"{variants[name][0]}: {name}.{field}.{kind}: {given!r} is not a "
                            f"{'data set' if kind == 'dataset' else kind} of {source}{suggest(given, known)}"
                        )
        for model in ("clip", "aesthetic"):
            if engine.filter.aesthetic.enabled and getattr(config.foundation, model) is None:
                raise InputError(f"{where}.aesthetic: needs foundation.{model}, which {source} does not give")


def _check_asked(project: Project) -> None:
    """A detector that is asked has seen real images alone, whatever a table means by its name."""
    wanted = [(asked.training.key, f"{asked.by} asks") for asked in project.asked()]
    wanted += [(row.key, "a step of an engine reads") for row, _ in project.read_by_steps()]
    for key, who in wanted:
        row = project.arms[key]
        if row.synthetic or not row.real:
            dataset, detector, arm = row.key
            raise InputError(
                f"arm {arm!r} of {dataset} and {detector}: {who} it, "
                "so it must be trained on the real images alone; give the other recipe another name"
            )


def _asking_folder(engine: Variant, config: Config) -> Variant:
    """The engine, its filter asking for a detector by the name of its folder."""
    agreement = engine.filter.agreement
    if not agreement.enabled:
        return engine
    asked = agreement.model_copy(update={"detector": shared_folder(agreement.detector, config)})
    return replace(engine, filter=engine.filter.model_copy(update={"agreement": asked}))
