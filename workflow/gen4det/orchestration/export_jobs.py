"""Jobs of exports: synthetic sets in the layouts of other tools, each with a data card."""

import shlex
from typing import Any

from gen4det.core.yaml_files import read_yaml
from gen4det.orchestration.detector_jobs import DetectorJobs
from gen4det.orchestration.job_text import job
from gen4det.orchestration.scale import LAYOUTS, MERGED

LICENCES = "resources/licences.yaml"
"""Terms of engines and of what ships with the repository; those of downloads stand in their registry."""
UNKNOWN = {"licence": "unknown", "citation": ""}


class ExportJobs(DetectorJobs):
    """Functions that the rule of exports calls."""

    layouts = rf"({'|'.join(LAYOUTS)})({MERGED})?"
    """Regular expression of the layouts: with `-merged` the real images are in it."""

    def exports(self) -> list[str]:
        """Exports that the scale asks for."""
        return [
            f"{self.results}/exports/{it.dataset}/{it.engine}/{it.folder}/export.json"
            for it in self.config.exports
        ]

    def export(self, wildcards: Any) -> str:
        """Settings of an export, with the facts of its data card."""
        variant = self._variant(wildcards)
        licences = read_yaml(self.project.root / LICENCES)
        used = sorted({name for step in variant.steps.in_order for name in step.models})
        own = variant.settings.model_dump(mode="json").get("model")
        models = []
        for use in used:
            source = own if own and use == "diffusion" else self.config.foundation.model_dump()[use]
            if source:
                models.append({"use": use, "name": source["path"]} | self._terms(source["path"], licences))
        engine = licences["engines"].get(variant.settings.method, {})
        data = self._data_terms(wildcards.dataset, licences)
        card = {
            "scale": self.config.scale,
            "dataset": wildcards.dataset,
            "data_licence": data["licence"],
            "data_citation": data["citation"],
            "engine": wildcards.engine,
            "method": variant.settings.method,
            "paper": engine.get("paper", ""),
            "code": engine.get("code", "unknown"),
            "models": models,
            "run_seed": self.config.run_seed,
        }
        layout = wildcards.layout
        merged = layout.endswith(MERGED)
        settings = {"layout": layout.removesuffix(MERGED), "merged": merged, "card": card}
        return job(settings, "export")

    def tables_about(self, wildcards: Any, input: Any) -> str:
        """Rows of tables that are about this set alone, as an option; the card quotes those that are there.

        Asked with the inputs, so that Snakemake does not compare it.
        """
        rows = [f"{table}:{row}" for table, row in self._rows_about(wildcards)]
        return shlex.join(["--tables", *rows]) if rows else ""

    def quoted_tables(self, wildcards: Any) -> list[str]:
        """Tables that an export of the scale file comes after, so that its card says what the set did.

        An export that is asked for on the command line alone does not wait for trainings.
        """
        asked = (wildcards.dataset, wildcards.engine, wildcards.layout)
        if asked not in {(it.dataset, it.engine, it.folder) for it in self.config.exports}:
            return []
        return list(dict.fromkeys(table for table, _ in self._rows_about(wildcards)))

    def _rows_about(self, wildcards: Any) -> list[tuple[str, str]]:
        """(table, row) of the rows that are about this set alone."""
        return [
            (f"{self.results}/tables/{name}.csv", row)
            for name, study in self.project.studies.items()
            for row, training in study.trainings.items()
            if (training.dataset, training.synthetic) == (wildcards.dataset, (wildcards.engine,))
        ]

    def _terms(self, path: str, licences: dict) -> dict:
        """Licence of the weights of a model, and who to cite."""
        if name := self.downloads.name(path):
            known = self.downloads.registry.model(name)
            return {"licence": known.licence, "citation": known.citation}
        return licences["models"].get(path, UNKNOWN)

    def _data_terms(self, dataset: str, licences: dict) -> dict:
        """Terms of the real images of a data set."""
        data = self.config.datasets[dataset]
        if data.source == "subset":
            return self._data_terms(data.of, licences)
        if data.source == "download":
            files = [self.downloads.registry.files[it] for it in
                     self.downloads.registry.datasets[data.dataset].files]  # fmt: skip
            return {
                "licence": "; ".join(dict.fromkeys(it.licence for it in files)),
                "citation": "; ".join(dict.fromkeys(it.citation for it in files)),
            }
        return licences["data"].get(data.source, UNKNOWN)
