"""Jobs of synthetic sets: the steps of engines, measurements for filters, shards and sets."""

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from gen4det.engines.base import MANIFEST, engine_module
from gen4det.engines.steps import DETECTORS, ON_REAL_IMAGES, Step
from gen4det.filters.settings import AgreementSettings
from gen4det.orchestration.hashes import detector_files, inner_detectors
from gen4det.orchestration.job_text import job
from gen4det.orchestration.project_jobs import ProjectJobs
from gen4det.orchestration.studies import shared_folder
from gen4det.orchestration.variants import Variant


class SyntheticJobs(ProjectJobs):
    """Functions that the rules of engines and their data call."""

    # --- synthetic data -------------------------------------------------------------------------------

    def _variant(self, wildcards: Any) -> Variant:
        return self.project.engines[wildcards.engine]

    def _step_settings(self, variant: Variant, step: Step) -> dict:
        return {
            "engine": variant.settings.section(step),
            "step": step.name,
            "foundation": self.config.foundation.model_dump(mode="json", include=set(step.models)),
            "run_seed": self.config.run_seed,
        }

    def _step(self, wildcards: Any, step: Step, stage: str, part: str, **more: Any) -> str:
        """The parameter of a step: its settings, and the code of its module alone."""
        variant = self._variant(wildcards)
        settings = self._step_settings(variant, step)
        module = engine_module(variant.settings.method, part)
        files: dict[str, str] = {}
        for detector in inner_detectors(getattr(variant.settings, it) for it in variant.steps.fields(step)):
            files |= detector_files(detector, self.project.root, is_downloaded=self.downloads.name)
        more |= {"files": files} if files else {}
        return job(settings, stage, module, models=self.downloads.hashes(settings), **more)

    def fit(self, wildcards: Any) -> str:
        """Settings of a fit step."""
        step = self._variant(wildcards).steps[wildcards.step]
        return self._step(wildcards, step, "fit", step.module)

    def plan(self, wildcards: Any) -> str:
        """Settings of a manifest."""
        return self._step(wildcards, self._variant(wildcards).steps.draw, "plan", "plan")

    def generate(self, wildcards: Any) -> str:
        """Settings of a shard; with the number of shards, since it decides which rows a shard holds."""
        step = self._variant(wildcards).steps.draw
        return self._step(wildcards, step, "generate", "draw", shards=self.shards(wildcards))

    def shards(self, wildcards: Any) -> int:
        """Number of shards of a variant's images."""
        return self.project.shards(wildcards.engine)

    def label(self, wildcards: Any) -> str:
        """Settings of the labels of a shard."""
        return self._step(wildcards, self._variant(wildcards).steps.label, "label", "label")

    def models_of(self, kind: str) -> Callable:
        """Descriptions of the downloaded models that a step of a kind starts from, for `input`."""

        def descriptions(wildcards: Any) -> list[str]:
            variant = self._variant(wildcards)
            return self.downloads.needed(self._step_settings(variant, step_of(variant, kind, wildcards)))

        return descriptions

    def reads(self, kind: str) -> Callable:
        """What a step of a kind reads of what others made, for `input`."""
        return lambda wildcards: [file for _, file in self._reads(kind, wildcards)]

    def read_names(self, kind: str) -> Callable:
        """The same as NAME=PATH, for the option `--reads`."""
        return lambda wildcards: [f"{name}={file}" for name, file in self._reads(kind, wildcards)]

    def _reads(self, kind: str, wildcards: Any) -> Iterator[tuple[str, str]]:
        """(name, file or folder) of fitted models, drawn shards, detectors and detections."""
        variant, dataset = self._variant(wildcards), wildcards.dataset
        step = step_of(variant, kind, wildcards)
        shard = getattr(wildcards, "shard", None) if kind == "label" else None
        for name in step.reads:
            if variant.steps[name].kind == "fit":
                yield name, f"{self.results}/engines/{dataset}/{variant.owner[name]}/{name}/model"
            elif shard is None:
                yield from ((name, file) for file in self._shards(dataset, variant.name, "arrow"))
        if step.manifest_of:
            planned = self.project.engines[getattr(variant.settings, step.manifest_of)].images
            yield MANIFEST, f"{self.results}/synthetic/{dataset}/{planned}/manifest.jsonl"
        for name in step.detectors:
            trained = getattr(variant.settings, name)
            row = self.project.trained(dataset, trained)
            weights = f"{'/'.join(row.key)}/seed{trained.seed}/weights.safetensors"
            yield f"{DETECTORS}{name}", f"{self.results}/detectors/{weights}"
        for read in step.detections:
            question = getattr(variant.settings, read.setting)
            if question is None:
                continue
            folder = f"detections/{shared_folder(question.detector, self.config)}/seed{question.seed}"
            if read.on == ON_REAL_IMAGES:
                yield f"detections.{read.on}", f"{self.results}/data/{dataset}/{folder}/train.json"
            else:
                place = f"{self.results}/synthetic/{dataset}/{variant.owner[read.on]}/{folder}"
                count = self.project.shards(variant.name)
                numbers = [shard] if shard else [f"{it:05d}" for it in range(count)]
                yield from ((f"detections.{read.on}", f"{place}/{number}.json") for number in numbers)

    def drawn(self, suffix: str) -> Callable:
        """A file of the shard that a label step labels: "arrow", its labels, or "zip", its images."""

        def file(wildcards: Any) -> str:
            images = self._variant(wildcards).images
            folder = f"{self.results}/synthetic/{wildcards.dataset}/{images}/shards"
            return f"{folder}/{wildcards.shard}.{suffix}"

        return file

    def manifest(self, wildcards: Any) -> str:
        """The manifest that a variant's images were drawn from."""
        images = self._variant(wildcards).images
        return f"{self.results}/synthetic/{wildcards.dataset}/{images}/manifest.jsonl"

    def fit_curves(self, study: str) -> list[str]:
        """Curves of the losses of all fits of a study, each once for all variants that share it."""
        curves = []
        for dataset, name in self.project.studies[study].sets:
            variant = self.project.engines[name]
            fits = [step.name for step in variant.steps.fits if step.has_losses]
            curves += [f"{self.results}/engines/{dataset}/{variant.owner[it]}/{it}/losses.png" for it in fits]
        return list(dict.fromkeys(curves))

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
        """Settings of detections in a shard or in the real images: as many as whoever asks for the most."""
        images = getattr(wildcards, "engine", None)
        asked = [
            asked.max_per_image
            for asked in self.project.asked()
            if asked.images == images
            and asked.training.dataset == wildcards.dataset
            and asked.training.detector == wildcards.detector
            and asked.seed == int(wildcards.seed)
        ]
        limit = max(asked, default=AgreementSettings().max_per_image)
        return job({"max_per_image": limit}, "detect", *self.config.detectors[wildcards.detector].modules)

    def ratings(self, wildcards: Any) -> list[str]:
        """Aesthetic scores of all shards, where the filter looks at them."""
        chosen = self.project.engines[wildcards.engine].filter.aesthetic
        return self.measured(wildcards, "aesthetic") if chosen.enabled else []

    def calibration(self, wildcards: Any) -> list[str]:
        """Scores of the real training images, where the threshold is their mean."""
        chosen = self.project.engines[wildcards.engine].filter.aesthetic
        is_needed = chosen.enabled and chosen.threshold == "real-mean"
        return [f"{self.results}/data/{wildcards.dataset}/aesthetic.json"] if is_needed else []

    def detections(self, wildcards: Any) -> list[str]:
        """Detections in all shards, where the filter asks a detector."""
        chosen = self.project.engines[wildcards.engine].filter.agreement
        folder = f"detections/{chosen.detector}/seed{chosen.seed}"
        return self.measured(wildcards, folder) if chosen.enabled else []

    def measured(self, wildcards: Any, folder: str) -> list[str]:
        """One file per shard; they lie with the variant that draws the images, for all that share them."""
        images = self.project.engines[wildcards.engine].images
        place = f"{self.results}/synthetic/{wildcards.dataset}/{images}/{folder}"
        return [f"{place}/{shard:05d}.json" for shard in range(self.shards(wildcards))]

    # --- images -----------------------------------------------------------------------------------------

    def labels(self, wildcards: Any) -> list[str]:
        """Label files of all shards of an engine: those of its label step, else those it was drawn with."""
        variant = self._variant(wildcards)
        if variant.steps.label is None:
            return self._shards(wildcards.dataset, wildcards.engine, "arrow")
        owner = variant.owner[variant.steps.label.name]
        folder = f"{self.results}/synthetic/{wildcards.dataset}/{owner}/labels"
        return [f"{folder}/{shard:05d}.arrow" for shard in range(self.shards(wildcards))]

    def set_files(self, wildcards: Any) -> list[str]:
        """What the synthetic set of an engine refers to: images and tables of labels."""
        return [*self.shard_images(wildcards), *self.labels(wildcards)]

    def shard_images(self, wildcards: Any) -> list[str]:
        """Image stores of all shards of an engine."""
        return self._shards(wildcards.dataset, wildcards.engine, "zip")

    def shard_records(self, wildcards: Any) -> list[str]:
        """Records of the drawing of all shards of an engine."""
        return self._shards(wildcards.dataset, wildcards.engine, "record.json")

    def measure_set(self, wildcards: Any) -> str:
        """Settings of the measures of a synthetic set; none."""
        return job({}, "measure_set")

    def set_made(self, wildcards: Any) -> list[str]:
        """Records of all else that was made for a set, for `input`."""
        return [file for _, file in self._set_made(wildcards)]

    def set_made_by_kind(self, wildcards: Any) -> list[str]:
        """The same as KIND=PATH, for the option `--others`."""
        return [f"{kind}={file}" for kind, file in self._set_made(wildcards)]

    def _set_made(self, wildcards: Any) -> list[tuple[str, str]]:
        """Fits, labels, what filters and steps asked, detectors that steps read; each once.

        Not the detector of real images that filters ask: it is a row of every table.
        """
        variant, dataset = self._variant(wildcards), wildcards.dataset
        real = f"{self.results}/data/{dataset}"
        found = []
        for step in variant.steps.in_order:
            if step.kind == "fit":
                owner = variant.owner[step.name]
                found.append(("fit", f"{self.results}/engines/{dataset}/{owner}/{step.name}/model"))
            elif step.kind == "label":
                found += [("label", file) for file in self.labels(wildcards)]
            place = SimpleNamespace(dataset=dataset, engine=variant.name, step=step.name)
            for name, file in self._reads(step.kind, place):
                if name.startswith(DETECTORS):
                    found.append(("detector", file))
                elif name.startswith("detections."):
                    found.append(("detect_real" if file.startswith(f"{real}/") else "detect", file))
        found += [("rate", file) for file in self.ratings(wildcards)]
        found += [("calibrate", file) for file in self.calibration(wildcards)]
        found += [("detect", file) for file in self.detections(wildcards)]
        return list(dict.fromkeys((kind, f"{file}.record.json") for kind, file in found))

    def _shards(self, dataset: str, engine: str, suffix: str) -> list[str]:
        """Files of the shards, which lie with the variant that draws them."""
        folder = f"{self.results}/synthetic/{dataset}/{self.project.engines[engine].images}/shards"
        return [f"{folder}/{shard:05d}.{suffix}" for shard in range(self.project.shards(engine))]

    def _sets(self, dataset: str, engines: Iterable[str]) -> list[str]:
        return [f"{self.results}/synthetic/{dataset}/{engine}/set.json" for engine in engines]

    def _set_files(self, dataset: str, engines: Iterable[str]) -> list[str]:
        places = [SimpleNamespace(dataset=dataset, engine=engine) for engine in engines]
        return list(dict.fromkeys(file for it in places for file in self.set_files(it)))


def step_of(variant: Variant, kind: str, wildcards: Any) -> Step:
    """The step of a kind; of several fits the one that the wildcards name."""
    steps = variant.steps
    return steps[wildcards.step] if kind == "fit" else {"draw": steps.draw, "label": steps.label}[kind]
