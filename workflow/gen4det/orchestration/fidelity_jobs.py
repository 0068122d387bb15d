"""Jobs that measure how faithful generated images are, one for each set, and their table. See
`FidelitySettings`."""

from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.settings import suggest
from gen4det.orchestration.downloads import Downloads
from gen4det.orchestration.job_text import job
from gen4det.orchestration.scale import Config


class FidelityJobs:
    """Functions that the rules of fidelity call.

    Args:
        jobs: those of the other rooms.
    """

    def __init__(self, jobs: Any):
        self.jobs, self.project, self.config = jobs, jobs.project, jobs.config
        self.results = jobs.results

    @property
    def _settings(self) -> Any:
        """The section `fidelity`. Raises InputError where the scale has none."""
        if self.config.fidelity is None:
            raise InputError(f"scale {self.config.scale!r} has no section `fidelity`, so nothing measures it")
        return self.config.fidelity

    def _detections(self, dataset: str) -> str:
        detector = self.project.judge(dataset)
        if detector is None:
            raise InputError(f"fidelity.detectors: no detector for {dataset}")
        return f"detections/{detector}/seed{self._settings.seed}"

    def detections(self, wildcards: Any) -> list[str]:
        """What the detector of real images finds in all shards of a set."""
        return self.jobs.measured(wildcards, self._detections(wildcards.dataset))

    def _models(self) -> dict:
        clip = self.config.foundation.clip
        return {
            "features": self._settings.features.model_dump(mode="json"),
            "clip": clip and clip.model_dump(mode="json"),
        }

    def measure(self, wildcards: Any) -> str:
        """Settings of the measurement of a set."""
        models = self._models()
        return job(models, "fidelity", models=self.jobs.downloads.hashes(models))

    def models(self, wildcards: Any) -> list[str]:
        """Descriptions of the downloaded models it needs."""
        return self.jobs.downloads.needed(self._models())

    # --- the table ------------------------------------------------------------------------------------

    def sets(self, wildcards: Any) -> list[str]:
        """Measures of fidelity of all sets of this run."""
        return [f"{place}/fidelity.json" for place in self._places()]

    def measures(self, wildcards: Any) -> list[str]:
        """Measures of what those sets offer for training."""
        return [f"{place}/measures.json" for place in self._places()]

    def _places(self) -> list[str]:
        return [
            f"{self.results}/synthetic/{dataset}/{engine}" for dataset, engine in self.project.judged_sets
        ]

    def ceilings(self, wildcards: Any) -> list[str]:
        """What the same detectors reach on real validation images, a data set each."""
        return [file for _, file in self._ceilings()]

    def _ceilings(self) -> list[tuple[str, str]]:
        seed = self._settings.seed
        return [
            (it, f"{self.results}/detectors/{it}/{self.project.judge(it)}/real/seed{seed}/{it}/metrics.json")
            for it in dict.fromkeys(dataset for dataset, _ in self.project.judged_sets)
        ]

    def table(self, wildcards: Any) -> str:
        """Settings of the table."""
        settings = {"scale": self.config.scale, "published": self._settings.published}
        return job(settings, "fidelity_table")

    def rows(self, wildcards: Any) -> list[str]:
        """<data set>/<engine>=<file>, of the sets and of the real images."""
        found = [f"{dataset}/real={file}" for dataset, file in self._ceilings()]
        pairs = zip(self.project.judged_sets, self._places(), strict=True)
        return found + [f"{dataset}/{engine}={place}" for (dataset, engine), place in pairs]

    # --- pages ----------------------------------------------------------------------------------------

    def page_sets(self, wildcards: Any) -> list[str]:
        """Label files of all shards of the engines that a page shows side by side."""
        return [file for it in self._page(wildcards) for file in self.jobs.labels(it)]

    def page_images(self, wildcards: Any) -> list[str]:
        """Their images."""
        return [file for it in self._page(wildcards) for file in self.jobs.shard_images(it)]

    def page_detections(self, wildcards: Any) -> list[str]:
        """What the detector of real images finds in them."""
        return [file for it in self._page(wildcards) for file in self.detections(it)]

    def page(self, wildcards: Any) -> str:
        """Settings of a page."""
        shown = self._page(wildcards)
        settings = {"engines": [it.engine for it in shown], "shards": [self.jobs.shards(it) for it in shown]}
        return job(settings, "layout_page")

    def _page(self, wildcards: Any) -> list[Any]:
        engines = self._settings.side_by_side.get(wildcards.dataset)
        if not engines:
            raise InputError(f"fidelity.side_by_side: no engines for {wildcards.dataset}")
        for engine in engines:
            if engine not in self.project.engines:
                raise InputError(f"fidelity.side_by_side: no study of this run uses {engine!r}")
        return [Place(wildcards.dataset, engine) for engine in engines]


class Place:
    """Wildcards of a set."""

    def __init__(self, dataset: str, engine: str):
        self.dataset, self.engine = dataset, engine


def check_fidelity(
    config: Config, variants: dict, drawn_for: set[str], *, source: str, downloads: Downloads
) -> None:
    """What the section `fidelity` names is there; detectors only if this run may ask them.

    Args:
        drawn_for: data sets that studies of this run have synthetic sets of.

    Raises:
        InputError: one line for the first problem.
    """
    fidelity = config.fidelity
    if fidelity is None:
        return
    where = f"{source}: fidelity"
    downloads.check(fidelity.features.model.path, f"{where}.features.model.path")
    for key in ("detectors", "side_by_side"):
        for dataset in getattr(fidelity, key):
            if dataset not in config.datasets:
                raise InputError(
                    f"{where}.{key}: no such data set {dataset!r}{suggest(dataset, config.datasets)}"
                )
    for dataset, detector in fidelity.detectors.items():
        asked = any(dataset in (it, getattr(config.datasets[it], "of", None)) for it in drawn_for)
        if asked and detector not in config.detectors:
            known = suggest(detector, config.detectors)
            raise InputError(f"{where}.detectors.{dataset}: no such detector {detector!r}{known}")
    named = [*fidelity.published, *(it for engines in fidelity.side_by_side.values() for it in engines)]
    for engine in named:
        if engine not in variants:
            raise InputError(f"{where}: no such engine {engine!r}{suggest(engine, variants)}")
