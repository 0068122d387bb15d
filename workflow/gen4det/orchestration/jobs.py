"""What the rules ask: settings of a job, its inputs, the targets. Plain Python, no Snakemake, no torch.

Every job gets ONE parameter, a JSON text with the settings its stage reads and the hash of the code it runs.
Snakemake compares it with the one the result was made from: what is in it decides what runs again, so
everything that changes a result is in it and nothing else is.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings, suggest
from gen4det.engines.base import engine_module
from gen4det.evaluation.prediction_settings import PredictionSettings
from gen4det.evaluation.settings import MeasureSettings
from gen4det.filters.settings import AgreementSettings
from gen4det.orchestration import needs
from gen4det.orchestration.downloads import Downloads
from gen4det.orchestration.hashes import config_files, sampled_hash
from gen4det.orchestration.job_text import job
from gen4det.orchestration.project import Project
from gen4det.orchestration.scale import JobNeeds


class Jobs:
    """Answers to the rules for one checked configuration.

    Methods that take `wildcards` accept any object with the attributes they read.
    """

    def __init__(self, project: Project):
        self.project = project
        self.config = project.config
        self.results = project.config.results.rstrip("/")
        self.downloads = Downloads(project.config.downloads, project.root)

    # --- patterns and targets ---------------------------------------------------------------------

    def names(self, kind: str) -> str:
        """Regular expression that matches the configured names of a kind of wildcard, nothing else."""
        known: dict[str, Iterable[str]] = {
            "dataset": self.config.datasets,
            "detector": self.config.detectors,
            "engine": self.project.engines,
            "arm": sorted({arm for _, _, arm in self.project.arms}),
            "study": self.project.studies,
        }
        return one_of(known[kind])

    def datasets_from(self, source: str) -> str:
        """Regular expression of the data sets that come from a source."""
        return one_of(name for name, data in self.config.datasets.items() if data.source == source)

    def targets(self) -> list[str]:
        """What a run without arguments makes: tables and figures of the configured studies."""
        return [file for study in self.project.studies for file in self.pages(study)]

    def pages(self, study: str) -> list[str]:
        """Table, figure, gallery of one study, and a page for each filter that looks at images.

        A study without synthetic data has no gallery.
        """
        pages = [f"{self.results}/tables/{study}.csv", f"{self.results}/figures/{study}.pdf"]
        if self.project.studies[study].engines:
            pages.append(f"{self.results}/figures/{study}_gallery.pdf")
        for dataset, engine in self.project.studies[study].sets:
            if self.project.engines[engine].filter.measures:
                pages.append(f"{self.results}/synthetic/{dataset}/{engine}/filter.pdf")
        return pages

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
        return job(data.model_dump(mode="json"), stage, **self.downloads.registered(data))

    def own_files(self, wildcards: Any) -> list[str]:
        """The user's annotation files, so that editing one is noticed; the stage names missing ones."""
        data = self.config.datasets[wildcards.dataset]
        files = (data.train.annotations, data.val.annotations)
        return [file for file in files if Path(file).is_file()]

    def whole(self, wildcards: Any) -> str:
        """Descriptor of the data set that a subset is taken from."""
        return f"{self.results}/data/{self.config.datasets[wildcards.dataset].of}/dataset.json"

    def dataset(self, wildcards: Any) -> str:
        """Descriptor of the data set of a job."""
        return f"{self.results}/data/{wildcards.dataset}/dataset.json"

    # --- synthetic data -------------------------------------------------------------------------------

    def _drawing(self, wildcards: Any, stage: str, **more: Any) -> str:
        settings = self._drawing_settings(wildcards)
        module = engine_module(settings["engine"]["method"], "engine")
        return job(settings, stage, module, models=self.downloads.hashes(settings), **more)

    def _drawing_settings(self, wildcards: Any) -> dict:
        engine = self.project.engines[wildcards.engine].settings
        return {
            "engine": engine.model_dump(mode="json"),
            "foundation": self.config.foundation.model_dump(mode="json", include=set(engine.models)),
            "run_seed": self.config.run_seed,
        }

    def drawing_models(self, wildcards: Any) -> list[str]:
        """Descriptions of the downloaded models an engine draws with."""
        return self.downloads.needed(self._drawing_settings(wildcards))

    def finetune(self, wildcards: Any) -> str:
        """Settings of an engine that fits its generator first."""
        return self._drawing(wildcards, "finetune")

    def plan(self, wildcards: Any) -> str:
        """Settings of a manifest."""
        return self._drawing(wildcards, "plan")

    def generate(self, wildcards: Any) -> str:
        """Settings of a shard; with the number of shards, since it decides which rows a shard holds."""
        return self._drawing(wildcards, "generate", shards=self.config.shards)

    def filter(self, wildcards: Any) -> str:
        """Settings of the choice of what is offered for training."""
        chosen = self.project.engines[wildcards.engine].filter
        return job({"filter": chosen.model_dump(mode="json")}, "filter")

    def filter_page(self, wildcards: Any) -> str:
        """Settings of the page that shows what the filter chose; its defaults."""
        return job({}, "filter_page")

    # --- what filters look at ---------------------------------------------------------------------------

    def _rating_models(self) -> dict:
        return self.config.foundation.model_dump(mode="json", include={"clip", "aesthetic"})

    def _rating(self, stage: str) -> str:
        models = self._rating_models()
        return job({"foundation": models}, stage, models=self.downloads.hashes(models))

    def rating_models(self, wildcards: Any) -> list[str]:
        """Descriptions of the downloaded models that rate images."""
        return self.downloads.needed(self._rating_models())

    def rate(self, wildcards: Any) -> str:
        """Settings of the aesthetic scores of a shard; thresholds are the filter's."""
        return self._rating("rate")

    def calibrate(self, wildcards: Any) -> str:
        """Settings of the aesthetic scores of the real training images."""
        return self._rating("calibrate")

    def detect(self, wildcards: Any) -> str:
        """Settings of the detections in a shard: as many as the variant that asks for the most."""
        asked = [
            engine.filter.agreement.max_per_image
            for engine in self.project.engines.values()
            if engine.images == wildcards.engine
            and engine.filter.agreement.enabled
            and engine.filter.agreement.detector == wildcards.detector
            and engine.filter.agreement.seed == int(wildcards.seed)
        ]
        return job({"max_per_image": max(asked, default=AgreementSettings().max_per_image)}, "detect")

    def ratings(self, wildcards: Any) -> list[str]:
        """Aesthetic scores of all shards, where the filter looks at them."""
        chosen = self.project.engines[wildcards.engine].filter.aesthetic
        return self._measured(wildcards, "aesthetic") if chosen.enabled else []

    def calibration(self, wildcards: Any) -> list[str]:
        """Scores of the real training images, where the threshold is their mean."""
        chosen = self.project.engines[wildcards.engine].filter.aesthetic
        is_needed = chosen.enabled and chosen.threshold == "real-mean"
        return [f"{self.results}/data/{wildcards.dataset}/aesthetic.json"] if is_needed else []

    def detections(self, wildcards: Any) -> list[str]:
        """Detections in all shards, where the filter asks a detector."""
        chosen = self.project.engines[wildcards.engine].filter.agreement
        folder = f"detections/{chosen.detector}/seed{chosen.seed}"
        return self._measured(wildcards, folder) if chosen.enabled else []

    def _measured(self, wildcards: Any, folder: str) -> list[str]:
        """One file per shard; they lie with the variant that draws the images, for all that share them."""
        images = self.project.engines[wildcards.engine].images
        place = f"{self.results}/synthetic/{wildcards.dataset}/{images}/{folder}"
        return [f"{place}/{shard:05d}.json" for shard in range(self.config.shards)]

    # --- images -----------------------------------------------------------------------------------------

    def model(self, wildcards: Any) -> list[str]:
        """What an engine has to fit before it draws; nothing for training-free ones."""
        if not self.project.engines[wildcards.engine].settings.needs_fit:
            return []
        return [f"{self.results}/engines/{wildcards.dataset}/{wildcards.engine}/model"]

    def shards(self, wildcards: Any) -> list[str]:
        """Label files of all shards of an engine."""
        return self._shards(wildcards.dataset, wildcards.engine, "json")

    def shard_images(self, wildcards: Any) -> list[str]:
        """Image stores of all shards of an engine."""
        return self._shards(wildcards.dataset, wildcards.engine, "zip")

    def _shards(self, dataset: str, engine: str, suffix: str) -> list[str]:
        """Files of the shards, which lie with the variant that draws them."""
        folder = f"{self.results}/synthetic/{dataset}/{self.project.engines[engine].images}/shards"
        return [f"{folder}/{shard:05d}.{suffix}" for shard in range(self.config.shards)]

    # --- detectors --------------------------------------------------------------------------------------

    def synthetic_sets(self, wildcards: Any) -> list[str]:
        """Annotations of the synthetic sets an arm trains on."""
        arm = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        return self._sets(wildcards.dataset, arm.synthetic)

    def synthetic_images(self, wildcards: Any) -> list[str]:
        """Image stores of those sets."""
        arm = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        return self._images(wildcards.dataset, arm.synthetic)

    def _sets(self, dataset: str, engines: Iterable[str]) -> list[str]:
        return [f"{self.results}/synthetic/{dataset}/{engine}/annotations.json" for engine in engines]

    def _images(self, dataset: str, engines: Iterable[str]) -> list[str]:
        files = (file for engine in engines for file in self._shards(dataset, engine, "zip"))
        return list(dict.fromkeys(files))

    def backbone(self, wildcards: Any) -> list[str]:
        """Description of the downloaded weights a training starts from."""
        training = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        return self.downloads.file(training.settings.backbone_weights)

    def train(self, wildcards: Any) -> str:
        """Settings of one training."""
        training = self.project.arms[wildcards.dataset, wildcards.detector, wildcards.arm]
        detector = training.settings
        root = self.project.root
        files = config_files(root / detector.config)
        if detector.backbone_weights and not self.downloads.name(detector.backbone_weights):
            files.append(root / detector.backbone_weights)
        hashes = {str(file.relative_to(root)): sampled_hash(file) for file in files if file.is_file()}
        settings = {
            "detector": detector.model_dump(mode="json"),
            "real": training.real,
            "seed": int(wildcards.seed),
        }
        return job(settings, "train", files=hashes)

    def measured_on(self, wildcards: Any) -> str:
        """Descriptor of the data set that a detector is measured on."""
        return f"{self.results}/data/{wildcards.on}/dataset.json"

    def predict(self, wildcards: Any) -> str:
        """Settings of the predictions of one detector; what the detector is stands in its weights."""
        settings = self._evaluation(PredictionSettings)
        return job(settings | {"partial": wildcards.on != wildcards.dataset}, "predict")

    def measure(self, wildcards: Any) -> str:
        """Settings of the measurement of predictions."""
        return job({"evaluation": self._evaluation(MeasureSettings)}, "measure")

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
            for seed in self.config.seeds
        ]

    def table(self, wildcards: Any) -> str:
        """Settings of a table or figure."""
        return job(self.project.studies[wildcards.study].table.model_dump(mode="json"), "plot")

    def gallery(self, wildcards: Any) -> str:
        """Settings of a page of generated images."""
        return job(self.project.studies[wildcards.study].gallery.model_dump(mode="json"), "plot")

    def gallery_sets(self, wildcards: Any) -> list[str]:
        """Annotations of all synthetic sets of a study."""
        sets = self.project.studies[wildcards.study].sets
        return [file for dataset, engine in sets for file in self._sets(dataset, [engine])]

    def gallery_images(self, wildcards: Any) -> list[str]:
        """Image stores of those sets."""
        sets = self.project.studies[wildcards.study].sets
        images = (file for dataset, engine in sets for file in self._images(dataset, [engine]))
        return list(dict.fromkeys(images))

    # --- the miniature's foundation models ------------------------------------------------------------------

    def foundation(self, wildcards: Any) -> str:
        """Settings of the training of the miniature's foundation models."""
        return job(self.config.foundation_training.model_dump(mode="json"), "foundation")

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
