"""Jobs of the page on a whole study: what it says of the configuration, and the results that it shows."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gen4det.core.yaml_files import read_yaml
from gen4det.detection.config_files import config_files
from gen4det.evaluation.page_settings import ArmFacts, MethodFacts, PageSettings, SetFacts
from gen4det.orchestration.export_jobs import LICENCES
from gen4det.orchestration.hashes import folder_hash
from gen4det.orchestration.job_text import job
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.studies import Training
from gen4det.orchestration.variants import Variant, load_engines, read_variants

ENGINES = "resources/engines.yaml"
"""What is said of each engine."""
REFERENCES = "resources/references.yaml"
CITED = ("method", "model", "protocol", "package")
"""Kinds of what is cited of which records tell the names."""
TEMPLATES = "workflow/gen4det/evaluation/templates"
MANY_SETS = 6
"""Sets of which a page shows `PageSettings.pictures` images each; of more sets it shows `FEWER`."""
FEWER = 8


class PageJobs:
    """Functions that the rule of the page calls, for one checked configuration."""

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        self.project = jobs.project
        self.results = jobs.results

    def pages(self, wildcards: Any) -> list[str]:
        """The pages of all studies of this run."""
        return [f"{self.results}/reports/{study}/index.html" for study in self.project.studies]

    def settings(self, wildcards: Any) -> str:
        """Settings of a page, with the contents of its templates."""
        study = self.project.studies[wildcards.study]
        engines = {engine: self.project.engines[engine] for _, engine in study.sets}
        methods = dict.fromkeys(variant.settings.method for variant in engines.values())
        arms = {
            row: ArmFacts(
                dataset=it.dataset,
                detector=it.detector,
                real=it.real,
                on=study.on[row],
                cites=self._cites(it, study.on[row]),
                sets=tuple(f"{it.dataset}/{engine}" for engine in it.synthetic),
            )
            for row, it in study.trainings.items()
        }
        page = PageSettings(
            table=json.loads(self.jobs.table(wildcards))["settings"],
            question=study.question,
            arms=arms,
            sets={f"{dataset}/{engine}": self._set(engines[engine]) for dataset, engine in study.sets},
            methods={method: self._method(method) for method in methods},
            references=self._references["references"],
            cited={kind: self._references["cited"][kind] for kind in CITED},
            **({"pictures": FEWER} if len(study.sets) > MANY_SETS else {}),
        )
        templates = {TEMPLATES: folder_hash(self.project.root / TEMPLATES)}
        return job(page.model_dump(mode="json"), "study_page", templates=templates)

    @functools.cached_property
    def _references(self) -> dict:
        return read_yaml(self.project.root / REFERENCES)

    def _cites(self, training: Training, on: str) -> tuple[str, ...]:
        """References to a detector, by the words of its config, and to its data sets."""
        files = config_files(self.project.root / training.settings.config)
        text = "".join(file.read_text() for file in files).replace("'", '"')
        cited, config = self._references["cited"], self.jobs.config
        keys = [key for word, keys in cited["detector"].items() if word in text for key in keys]
        if training.settings.diffusion is not None:
            keys += cited["model"]["diffusion"]
        for name in (training.dataset, on):
            data = config.datasets[name]
            whole = config.datasets[data.of] if data.source == "subset" else data
            keys += cited["data"].get(getattr(whole, "dataset", ""), ())
        return tuple(dict.fromkeys(keys))

    def _set(self, variant: Variant) -> SetFacts:
        used = {name for step in variant.steps.in_order for name in step.models}
        models = self.jobs.config.foundation.model_dump(mode="json", include=used)
        own = variant.settings.model_dump(mode="json").get("model")
        if own and "diffusion" in models:
            models["diffusion"] = own
        return SetFacts(
            method=variant.settings.method,
            changed=self._changed(variant),
            models={use: model["path"] for use, model in models.items() if model},
        )

    def _changed(self, variant: Variant) -> dict[str, tuple[Any, Any]]:
        """What a variant of this run has otherwise than the preset that bears the engine's name."""
        there = dict(_flat(preset_of(variant.settings.method, self.project.root)))
        here = dict(_flat(_all_settings(variant)))
        differing = [key for key in here if there.get(key) != here[key]]
        return {key: (there.get(key), here[key]) for key in differing}

    def _method(self, method: str) -> MethodFacts:
        terms = read_yaml(self.project.root / LICENCES)["engines"].get(method, {})
        known = read_yaml(self.project.root / ENGINES).get(method, {"name": method, "idea": ""})
        terms = {key: terms[key] for key in ("paper", "code") if key in terms}
        return MethodFacts(**known, **terms, preset=preset_of(method, self.project.root))

    # --- results ------------------------------------------------------------------------------------

    def sets(self, wildcards: Any) -> list[str]:
        """<data set>/<engine>=set.json of all sets of a study."""
        return [f"{d}/{e}={self._place(d, e)}/set.json" for d, e in self._sets(wildcards)]

    def measures(self, wildcards: Any) -> list[str]:
        """<data set>/<engine>=measures.json of all sets, with what the study's table reads besides."""
        own = [f"{d}/{e}={self._place(d, e)}/measures.json" for d, e in self._sets(wildcards)]
        return list(dict.fromkeys(own + self.jobs.set_measures_by_name(wildcards)))

    def figures(self, wildcards: Any) -> list[str]:
        """<caption>=<picture> of a study."""
        study = self.project.studies[wildcards.study]
        place = f"{self.results}/figures/{wildcards.study}"
        gains = [f"What each category gains={place}_categories.png"] if study.categories else []
        measured = self.project.measured_labels(wildcards.study)
        right = [f"How right labels are={place}_labels.png"] if measured else []
        return [f"{study.table.title}={place}.png", *gains, *right]

    def fits(self, wildcards: Any) -> list[str]:
        """<data set>/<engine>, <step>=losses.csv of what the engines of a study learned."""
        found = (file.removesuffix(".png") for file in self.jobs.fit_curves(wildcards.study))
        return [f"{_of_fit(file)}={file}.csv" for file in found]

    def inputs(self, wildcards: Any) -> list[str]:
        """All these files, and the images and labels of the sets."""
        named = [self.sets, self.measures, self.figures, self.fits]
        files = [it.rpartition("=")[2] for some in named for it in some(wildcards)]
        beside = [file.replace("set.json", "filter.csv") for file in files if "/synthetic/" in file]
        beside = [file for file in beside if file.endswith("filter.csv")]
        return [*files, *beside, *self.jobs.gallery_files(wildcards), *self._losses(wildcards)]

    def _losses(self, wildcards: Any) -> Iterator[str]:
        curves = self.jobs.loss_curves(wildcards.study)
        return (file.replace("losses.png", "losses.csv") for file in curves)

    def _sets(self, wildcards: Any) -> list[tuple[str, str]]:
        return self.project.studies[wildcards.study].sets

    def _place(self, dataset: str, engine: str) -> str:
        return f"{self.results}/synthetic/{dataset}/{engine}"


@functools.cache
def preset_of(method: str, root: Path) -> dict:
    """All settings of the variant that bears an engine's name, as config/engines has it; none: {}."""
    written = read_variants(root / "config" / "engines")
    return (
        _all_settings(load_engines([method], {}, written, source=ENGINES)[method])
        if method in written
        else {}
    )


def _of_fit(file: str) -> str:
    dataset, engine, step, _ = file.split("/")[-4:]
    return f"{dataset}/{engine}, {step}"


def _all_settings(variant: Variant) -> dict:
    own = variant.settings.model_dump(mode="json")
    return own | {"filter": variant.filter.model_dump(mode="json")}


def _flat(values: dict, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their paths, e.g. ("denoising.steps", 50)."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
