"""What the rules call: settings of a job, its inputs, the targets. Plain Python, no Snakemake, no torch.

Every job gets ONE parameter, a JSON text with the settings its stage reads and the hash of the code it runs.
Snakemake compares it with the one the result was made from: what is in it decides what runs again, so
everything that changes a result is in it and nothing else is.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.settings import suggest
from gen4det.data.pictures_seen import FOLDER, seen_file
from gen4det.detection.config_files import learns_masks
from gen4det.orchestration import needs
from gen4det.orchestration.export_jobs import ExportJobs
from gen4det.orchestration.hashes import sampled_hash
from gen4det.orchestration.job_text import job
from gen4det.orchestration.own_files import folder_token, pictures_token
from gen4det.orchestration.scale import JobNeeds


class Jobs(ExportJobs):
    """Functions that the rules call: targets, data, resources of jobs, and those of the base classes."""

    # --- patterns and targets ---------------------------------------------------------------------

    def names(self, kind: str) -> str:
        """Regular expression that matches the configured names of a kind of wildcard, nothing else."""
        known: dict[str, Iterable[str]] = {
            "dataset": self.config.datasets,
            "detector": self.config.detectors,
            "engine": self.project.engines,
            "step": {step.name for it in self.project.engines.values() for step in it.steps.fits},
            "arm": sorted({arm for _, _, arm in self.project.arms}),
            "study": self.project.studies,
        }
        return one_of(known[kind])

    def datasets_from(self, source: str) -> str:
        """Regular expression of the data sets that come from a source."""
        return one_of(name for name, data in self.config.datasets.items() if data.source == source)

    def targets(self) -> list[str]:
        """What a run without arguments makes: tables and figures of the studies, and exports."""
        return [file for study in self.project.studies for file in self.pages(study)] + self.exports()

    def pages(self, study: str) -> list[str]:
        """Table, figure, gallery of one study, a page for each filter that looks at images, curves of losses.

        Of engines that are to be shown side by side there is a page of the same layouts.

        A study without synthetic data has no gallery.
        """
        pages = [f"{self.results}/tables/{study}.csv", f"{self.results}/figures/{study}.pdf"]
        if self.project.studies[study].engines:
            pages.append(f"{self.results}/figures/{study}_gallery.pdf")
        if self.project.studies[study].categories:
            pages.append(f"{self.results}/tables/{study}_categories.csv")
        if self.project.measured_labels(study):
            pages.append(f"{self.results}/tables/{study}_labels.csv")
        for dataset in self.project.layout_pages(study):
            pages.append(f"{self.results}/figures/layouts_{dataset}.pdf")
        for dataset, engine in self.project.studies[study].sets:
            if self.project.engines[engine].filter.measures:
                pages.append(f"{self.results}/synthetic/{dataset}/{engine}/filter.pdf")
        return pages + self.loss_curves(study) + self.fit_curves(study)

    def check_targets(self, words: Iterable[str]) -> None:
        """Refuse results of trainings that no study of this run asks for.

        Args:
            words: of the command line. Others than such results are not looked at.

        Raises:
            InputError: a detector's result of a data set, detector and arm that are not trained together.
        """
        known = {"/".join(key) for key in self.project.arms}
        for target in words:
            inside = re.match(rf"{re.escape(self.results)}/detectors/([^/]+/([^/]+)/[^/]+)/", target)
            if inside is None or inside[1] in known:
                continue
            same = self.config.detectors.get(inside[2])
            hint = suggest(inside[1], known)
            if same is not None and same.same_as:
                hint = f"; {inside[2]} is the same as {same.same_as}, see there"
            raise InputError(f"{target}: no study of this run trains {inside[1]}{hint}")

    # --- data ---------------------------------------------------------------------------------------

    def data(self, wildcards: Any) -> str:
        """Settings of a data set, for render, photographs, download and subset."""
        data = self.config.datasets[wildcards.dataset]
        stage = {"miniature": "render"}.get(data.source, data.source)
        own = {}
        if data.source == "photographs":
            own = {
                "pictures": self._pictures(wildcards),
                "files": {file: sampled_hash(Path(file)) for file in _annotations(data) if _has_braces(file)},
            }
        if data.source == "subset" and data.split is not None:
            own = {"files": {data.split: sampled_hash(self.project.root / data.split)}}
        return job(data.model_dump(mode="json"), stage, **self.downloads.registered(data), **own)

    def _pictures(self, wildcards: Any) -> dict[str, str]:
        """What changes when one of the user's pictures does, or, of a folder, any file in it."""
        data, descriptor = self.config.datasets[wildcards.dataset], self.dataset(wildcards)
        if data.folder is not None:
            return {FOLDER: folder_token(seen_file(descriptor, FOLDER), Path(data.folder))}
        roots = {split: it.images for split in ("train", "val") if (it := getattr(data, split))}
        return {split: pictures_token(seen_file(descriptor, split), Path(it)) for split, it in roots.items()}

    def mask_detectors(self, wildcards: Any, input: Any) -> str:
        """Configs of the detectors that learn masks from a data set or a subset of it, as an option.

        Asked with the inputs, so that Snakemake does not compare it: another detector draws nothing again.
        """
        sets, name = self.config.datasets.items(), wildcards.dataset
        alike = {name} | {subset for subset, data in sets if getattr(data, "of", None) == name}
        configs = sorted({arm.settings.config for arm in self.project.arms.values() if arm.dataset in alike})
        learning = [config for config in configs if learns_masks(self.project.root / config)]
        return shlex.join(["--mask-detectors", *learning]) if learning else ""

    def own_files(self, wildcards: Any) -> list[str]:
        """The user's annotation files, so that editing one is noticed; the stage names missing ones.

        Snakemake takes braces for wildcards; for such a path the hash in the parameter has to do.
        """
        return [
            file for file in _annotations(self.config.datasets[wildcards.dataset]) if not _has_braces(file)
        ]

    def whole(self, wildcards: Any) -> str:
        """Descriptor of the data set that a subset is taken from."""
        return f"{self.results}/data/{self.config.datasets[wildcards.dataset].of}/dataset.json"

    def dataset(self, wildcards: Any) -> str:
        """Descriptor of the data set of a job."""
        return f"{self.results}/data/{wildcards.dataset}/dataset.json"

    # --- what a job needs -----------------------------------------------------------------------------------

    def needs(self, kind: str) -> JobNeeds:
        """Needs of a kind of job."""
        return getattr(self.config.needs, kind)

    def memory(self, kind: str) -> Callable:
        """mem_mb of a kind of job, for `resources`."""
        return needs.memory(kind, self.needs(kind))

    def runtime(self, kind: str) -> Callable:
        """Minutes of a kind of job, for `resources`."""
        return needs.runtime(kind, self.needs(kind))


def one_of(names: Iterable[str]) -> str:
    """Regular expression that matches exactly these names; nothing if there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def _annotations(data: Any) -> list[str]:
    """Annotation files of a user's own data, those that are there."""
    splits = [split for split in (data.train, data.val) if split is not None]
    return [split.annotations for split in splits if Path(split.annotations).is_file()]


def _has_braces(path: str) -> bool:
    return "{" in path or "}" in path
