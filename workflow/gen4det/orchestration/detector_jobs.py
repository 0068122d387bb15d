"""Jobs of detectors and of the studies that compare them."""

from typing import Any

from gen4det.core.settings import Settings
from gen4det.detection.settings import DetectorSettings
from gen4det.evaluation.prediction_settings import PredictionSettings
from gen4det.evaluation.settings import MeasureSettings
from gen4det.orchestration.category_splits import category_split
from gen4det.orchestration.hashes import detector_files, sampled_hash
from gen4det.orchestration.job_text import job
from gen4det.orchestration.synthetic_jobs import SyntheticJobs


class DetectorJobs(SyntheticJobs):
    """Functions that the rules of trainings, predictions, measures, tables and figures call."""

    # --- detectors --------------------------------------------------------------------------------------

    def synthetic_sets(self, wildcards: Any) -> list[str]:
        """The synthetic sets an arm trains on."""
        arm = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        return self._sets(wildcards.dataset, arm.synthetic)

    def synthetic_files(self, wildcards: Any) -> list[str]:
        """Images and labels of those sets."""
        arm = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        return self._set_files(wildcards.dataset, arm.synthetic)

    def backbone(self, wildcards: Any) -> list[str]:
        """Descriptions of the downloaded models a training starts from."""
        detector = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm].settings
        models = self.downloads.needed(detector.model_dump(mode="json"))
        return self.downloads.file(detector.backbone_weights) + models

    def train(self, wildcards: Any) -> str:
        """Settings of one training."""
        training = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        return self.training(training.settings, real=training.real, seed=int(wildcards.seed))

    def training(self, detector: DetectorSettings, *, real: bool, seed: int) -> str:
        """Settings of the training of a detector, in a table or not."""
        hashes = detector_files(detector, self.project.root, is_downloaded=self.downloads.name)
        settings = {
            "detector": detector.model_dump(mode="json"),
            "real": real,
            "seed": seed,
        }
        models = self.downloads.hashes(settings)
        return job(settings, "train", *detector.modules, files=hashes, models=models)

    def loss_curve(self, wildcards: Any) -> str:
        """Settings of a curve of losses; its defaults."""
        return job({}, "loss_curve")

    def loss_curves(self, study: str) -> list[str]:
        """Curves of the losses of all trainings of a study."""
        checked = self.project.studies[study]
        trainings = dict.fromkeys("/".join(row.key) for row in checked.trainings.values())
        folders = (f"{key}/seed{seed}" for key in trainings for seed in checked.seeds)
        return [f"{self.results}/detectors/{folder}/losses.png" for folder in folders]

    def measured_on(self, wildcards: Any) -> str:
        """Descriptor of the data set that a detector is measured on."""
        return f"{self.results}/data/{wildcards.on}/dataset.json"

    def predict(self, wildcards: Any) -> str:
        """Settings of the predictions of one detector; the weights file describes the detector."""
        settings = self._evaluation(PredictionSettings)
        modules = self.config.detectors[wildcards.detector].modules
        return job(settings | {"partial": wildcards.on != wildcards.dataset}, "predict", *modules)

    def measure(self, wildcards: Any) -> str:
        """Settings of the measurement of predictions."""
        settings = self._evaluation(MeasureSettings)
        split = category_split(wildcards.on, self.config)
        settings["splits"] = {wildcards.on: split} if split else {}
        files = {"files": {split: sampled_hash(self.project.root / split)}} if split else {}
        return job({"evaluation": settings}, "measure", **files)

    def _evaluation(self, part: type[Settings]) -> dict:
        return self.config.evaluation.model_dump(mode="json", include=set(part.model_fields))

    # --- tables and figures -------------------------------------------------------------------------------

    def metrics(self, wildcards: Any) -> list[str]:
        """Metrics of every arm and seed of a study, arms in the order of the table."""
        return [path for _, path in self._metrics(wildcards)]

    def metrics_by_arm(self, wildcards: Any) -> list[str]:
        """The same as <arm>:<seed>=<path>: rows over several data sets may share the name of a folder."""
        return [f"{name}={path}" for name, path in self._metrics(wildcards)]

    def _metrics(self, wildcards: Any) -> list[tuple[str, str]]:
        study = self.project.studies[wildcards.study]
        place = f"{self.results}/detectors/{{}}/seed{{}}/{{}}/metrics.json"
        return [
            (f"{row}:{seed}", place.format("/".join(it.key), seed, study.on[row]))
            for row, it in study.trainings.items()
            for seed in study.seeds
        ]

    def table(self, wildcards: Any) -> str:
        """Settings of a table or figure."""
        study = self.project.studies[wildcards.study]
        settings = study.table.model_dump(mode="json")
        if study.table.sets:
            laid_out = [pair for pair in study.sets if self.project.engines[pair[1]].has_layout]
            settings["laid_out"] = ["/".join(pair) for pair in laid_out]
        return job(settings, "plot")

    def set_measures(self, wildcards: Any) -> list[str]:
        """What a table says of the sets behind it: measures of each, and of its fidelity if measured."""
        return [file for _, file in self._set_measures(wildcards)]

    def set_measures_by_name(self, wildcards: Any) -> list[str]:
        """The same as <data set>/<engine>=<path>, for the option `--sets`."""
        return [f"{name}={file}" for name, file in self._set_measures(wildcards)]

    def _set_measures(self, wildcards: Any) -> list[tuple[str, str]]:
        study, found = self.project.studies[wildcards.study], []
        for dataset, engine in study.sets if study.table.sets else ():
            name, place = f"{dataset}/{engine}", f"{self.results}/synthetic/{dataset}"
            found.append((name, f"{place}/{engine}/measures.json"))
            if self.project.judge(dataset):
                # Of what was drawn, whatever is offered of it: once for all that share the labels.
                found.append((name, f"{place}/{self.project.engines[engine].labels_of}/fidelity.json"))
        return found

    def category_gains(self, wildcards: Any) -> str:
        """Settings of the table and figure of categories."""
        settings = self.project.studies[wildcards.study].table.model_dump(mode="json")
        return job(settings, "category_gains")

    def gallery(self, wildcards: Any) -> str:
        """Settings of a page of generated images."""
        return job(self.project.studies[wildcards.study].gallery.model_dump(mode="json"), "plot")

    def gallery_sets(self, wildcards: Any) -> list[str]:
        """All synthetic sets of a study."""
        sets = self.project.studies[wildcards.study].sets
        return [file for dataset, engine in sets for file in self._sets(dataset, [engine])]

    def gallery_files(self, wildcards: Any) -> list[str]:
        """Images and labels of those sets."""
        sets = self.project.studies[wildcards.study].sets
        files = (file for dataset, engine in sets for file in self._set_files(dataset, [engine]))
        return list(dict.fromkeys(files))
