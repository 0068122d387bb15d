"""Jobs that measure how right labels are, one for each set, and the table of a study. See
`Study.label_quality`."""

from typing import Any

from gen4det.engines.base import engine_module
from gen4det.orchestration.job_text import job
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.studies import REAL, shared_folder


class LabelJobs:
    """Functions that the rules of label quality call, for one checked configuration."""

    def __init__(self, jobs: Jobs):
        self.jobs, self.project, self.config = jobs, jobs.project, jobs.config
        self.results = jobs.results

    # --- one set --------------------------------------------------------------------------------------

    def quality(self, wildcards: Any) -> str:
        """Settings of the measurement of a set's labeller: those of its variant and of its models."""
        variant = self.project.engines[wildcards.engine]
        models = self.config.foundation.model_dump(mode="json", include=set(variant.steps.label.models))
        settings = {"engine": variant.settings.model_dump(mode="json"), "foundation": models}
        module = engine_module(variant.settings.method, "label_quality")
        return job(settings, "label_quality", module, models=self.jobs.downloads.hashes(settings))

    def fitted(self, step: str) -> Any:
        """The model of a fit step of a set, for `input`."""

        def folder(wildcards: Any) -> str:
            owner = self.project.engines[wildcards.engine].owner[step]
            return f"{self.results}/engines/{wildcards.dataset}/{owner}/{step}/model"

        return folder

    def detector(self, wildcards: Any) -> str:
        """Weights of the detector that labels base categories."""
        asked = self.project.engines[wildcards.engine].settings.labeller
        place = f"{wildcards.dataset}/{shared_folder(asked.detector, self.config)}/{REAL}/seed{asked.seed}"
        return f"{self.results}/detectors/{place}/weights.safetensors"

    def shard(self, suffix: str) -> Any:
        """A file of the first shard of drawn images: "arrow", its labels, or "zip", its images."""

        def file(wildcards: Any) -> str:
            images = self.project.engines[wildcards.engine].images
            return f"{self.results}/synthetic/{wildcards.dataset}/{images}/shards/00000.{suffix}"

        return file

    # --- the table ------------------------------------------------------------------------------------

    def _sets(self, wildcards: Any) -> dict[str, str]:
        """Folder of each set by <data set>/<engine>."""
        sets = self.project.measured_labels(wildcards.study)
        return {f"{it}/{engine}": f"{self.results}/synthetic/{it}/{engine}" for it, engine in sets}

    def qualities(self, wildcards: Any) -> list[str]:
        """What was measured of all sets."""
        return [f"{place}/label_quality.json" for place in self._sets(wildcards).values()]

    def pictures(self, wildcards: Any) -> list[str]:
        """Images that it shows."""
        return [f"{place}/label_quality.zip" for place in self._sets(wildcards).values()]

    def rows(self, wildcards: Any) -> list[str]:
        """<data set>/<engine>=<file>."""
        return [f"{name}={place}/label_quality.json" for name, place in self._sets(wildcards).items()]

    def table(self, wildcards: Any) -> str:
        """Settings of the table: the words of the rows that train on the sets."""
        study = self.project.studies[wildcards.study]
        labels = {
            f"{it.dataset}/{engine}": study.table.arms[row].label or row
            for row, it in reversed(study.trainings.items())
            for engine in it.synthetic
        }
        own = {name: labels[name] for name in self._sets(wildcards)}
        return job({"scale": self.config.scale, "labels": own}, "label_table")
