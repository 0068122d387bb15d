"""From counted work to hours of a GPU, or of a core, and bytes, rule by rule."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gen4det.core.errors import InputError
from gen4det.core.yaml_files import read_yaml
from gen4det.data.model_settings import ModelSource
from gen4det.detection.config_files import config_files, guises, kept_draws
from gen4det.engines.work import Drawing, Fitting, drawing, fitting, labelling
from gen4det.evaluation.prediction_settings import MAX_DETECTIONS
from gen4det.filters.settings import AgreementSettings
from gen4det.orchestration.costs.data_sizes import DataSizes
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.costs.tasks import RULES, Task, unique
from gen4det.orchestration.project import Project
from gen4det.orchestration.studies import Training

REFERENCE_AREA = 512 * 512
"""Pixels of the images that `ModelCosts` are given for."""


@dataclass
class Estimate:
    """What the jobs of a rule, or some of them, need in all."""

    jobs: int = 0
    work: float | None = 0.0
    """Amount of counted work; None: unknown."""
    unit: str = ""
    """What is counted."""
    seconds: float | None = 0.0
    """Of a GPU, or of a core where no job of the scale asks for a GPU; None: unknown."""
    stored: float | None = 0.0
    """Bytes that stay on the disk; None: unknown."""
    passing: float | None = 0.0
    """Bytes that one of its jobs needs beside them while it runs; None: unknown."""
    longest: float = 0.0
    """Seconds that its longest job computes, as far as known, all its GPUs at once."""


def total(parts: Iterable[float | None]) -> float | None:
    """Sum; unknown where a part is."""
    parts = list(parts)
    return None if None in parts else sum(parts)


class Estimator:
    """Estimates for one checked configuration."""

    def __init__(self, project: Project, costs: Costs):
        self.project = project
        self.costs = costs
        needs = project.config.needs
        self.on_gpu = any(getattr(needs, kind).gpu for kind in type(needs).model_fields)
        """Whether hours are those of a GPU."""
        self.device = costs.gpu if self.on_gpu else costs.core
        self.models = costs.models if self.on_gpu or not costs.small_models else costs.small_models
        self.sizes = DataSizes(project)

    def by_rule(self, found: Iterable[Task]) -> dict[str, Estimate]:
        """Estimate of each rule that has jobs."""
        found = list(found)
        rules = [rule for rule in RULES if any(task.rule == rule for task in found)]
        return {rule: self._rule([task for task in found if task.rule == rule]) for rule in rules}

    def _rule(self, same: list[Task]) -> Estimate:
        parts = [self.of(task) for task in same]
        stored, passing = total(part.stored for part in parts), [part.passing for part in parts]
        if same[0].rule == "download" and stored is not None:
            stored += self._downloads(same)
        return Estimate(
            sum(part.jobs for part in parts),
            total(part.work for part in parts),
            parts[0].unit,
            total(part.seconds for part in parts),
            stored,
            None if None in passing else max(passing),
            max(part.longest for part in parts),
        )

    def of(self, task: Task) -> Estimate:
        """Estimate of jobs that are alike; of downloads without the images, which data sets may share."""
        estimate = getattr(self, f"_{task.rule}", self._page)(task)
        estimate.jobs = task.jobs
        gpus = getattr(self.project.config.needs, task.kind).gpu
        if self.device is None or self.on_gpu and not gpus:
            estimate.seconds = 0.0
        elif estimate.seconds is not None:
            estimate.seconds += task.jobs * self.device.job_start
            estimate.longest = estimate.seconds / task.jobs / (gpus or 1)
        return estimate

    # --- data -----------------------------------------------------------------------------------------

    def _annotations(self, task: Task) -> Estimate:
        """A copy of the annotations; photographs stay where they are."""
        size = self.sizes(task.dataset)
        if size is None:
            return Estimate(work=None, unit="images", stored=None)
        return Estimate(work=size.train_images + size.val_images, unit="images", stored=size.annotation_bytes)

    _download = _subset = _photographs = _names = _annotations

    def _render(self, task: Task) -> Estimate:
        size, estimate = self.sizes(task.dataset), self._annotations(task)
        estimate.stored += estimate.work * size.pixels * self.costs.files.png_pixel
        return estimate

    def _downloads(self, same: list[Task]) -> float:
        """Bytes of what archives hold, each once. Photographs are not compressed; mirrors are not copied."""
        seen: dict[str, float] = {}
        for task in same:
            data = self.project.config.datasets[task.dataset]
            registry = read_yaml(self.project.root / data.registry)
            files = registry["datasets"].get(data.dataset, {}).get("files", ())
            for name in () if data.root else files:
                seen[name] = registry["files"][name]["bytes"] or 0
        return sum(seen.values())

    def _download_model(self, task: Task) -> Estimate:
        return Estimate(work=1, unit="models", stored=self.costs.files.downloaded.get(task.model))

    # --- synthetic images -----------------------------------------------------------------------------

    def _drawn(self, task: Task) -> Drawing | None:
        size, variant = self.sizes(task.dataset), self.project.engines[task.engine]
        if size is None:
            return None
        if (planned := variant.draws_plan_of) is not None:  # rendered, not drawn
            other = drawing(self.project.engines[planned].settings, size)
            nothing = dict.fromkeys(("evaluations", "encoded_pixels", "decoded_pixels"), 0)
            return other and replace(other, **nothing)
        return drawing(variant.settings, size)

    def _fit(self, task: Task) -> Estimate:
        size, settings = self.sizes(task.dataset), self.project.engines[task.engine].settings
        work = fitting(settings, task.step, size) if size else None
        if work is None:
            return Estimate(work=None, unit="images seen", seconds=None, stored=None)
        seconds = self._seconds(task, work)
        stored = min(work.stored, self._size_here(task) or work.stored)
        return Estimate(work=work.images, unit="images seen", seconds=seconds, stored=stored)

    def _size_here(self, task: Task) -> int:
        """Bytes of the model that a variant starts from, where it lies on this disk, else 0."""
        source = self._model(task)
        folder = self.project.root / source.path if source else None
        if folder is None or not folder.is_dir():
            return 0
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def _plan(self, task: Task) -> Estimate:
        drawn = self._drawn(task)
        if drawn is None:
            return Estimate(work=None, unit="images", stored=None)
        return Estimate(work=drawn.images, unit="images", stored=drawn.images * self.costs.files.manifest_row)

    def _generate(self, task: Task) -> Estimate:
        drawn, unit = self._drawn(task), "U-Net evaluations"
        if drawn is None:
            return Estimate(work=None, unit=unit, seconds=None, stored=None)
        settings = self.project.engines[task.engine].settings
        pixel = getattr(self.costs.files, f"{settings.image_format}_pixel")
        stored = drawn.images * drawn.stored_pixels * pixel + self._labels(drawn)
        work = drawn.images * drawn.evaluations
        return Estimate(work=work, unit=unit, seconds=self._seconds(task, drawn), stored=stored)

    def _seconds(self, task: Task, work: Drawing | Fitting) -> float | None:
        """Of the U-Net and the autoencoder; None for a model whose work is not known.

        Work is taken to grow with the area, which overrates images below 512 x 512 px and underrates larger
        ones: self-attention grows with its square.
        """
        if not (work.evaluations or work.encoded_pixels):
            return 0.0
        source = self._model(task)
        unet = self.models.unet.get(PurePosixPath(source.path).name) if source else None
        speed = self._speed(work.precision)
        if unet is None or speed is None:
            return None
        models, area = self.models, REFERENCE_AREA
        denoised = work.evaluations * work.evaluated_pixels / area * unet / speed
        coded = work.encoded_pixels / area * models.encode
        coded += getattr(work, "decoded_pixels", 0) / area * models.decode
        return work.images * (denoised + coded / self._speed("float32"))

    def _model(self, task: Task) -> ModelSource | None:
        """What a variant draws with, or starts from."""
        variant = self.project.engines[task.engine]
        # A step that names no model works with one that a step before it has fitted.
        models = [name for step in (variant.steps.draw, *variant.steps.fits) for name in step.models]
        return getattr(variant.settings, "model", None) or getattr(self.project.config.foundation, models[0])

    def _speed(self, precision: str) -> float | None:
        """10^9 operations per second."""
        arithmetic = self.device and self.device.arithmetic.get(precision)
        return 1000 * arithmetic.peak * arithmetic.share if arithmetic else None

    def _labels(self, drawn: Drawing) -> float:
        files = self.costs.files
        return drawn.images * drawn.labels * (files.mask_label if drawn.masks else files.box_label)

    def _filter(self, task: Task) -> Estimate:
        """A byte for each label of the shards."""
        drawn = self._drawn(task)
        if drawn is None:
            return Estimate(work=None, unit="images", stored=None)
        return Estimate(work=drawn.images, unit="images", stored=drawn.images * drawn.labels)

    # --- what filters look at -------------------------------------------------------------------------

    def _rate(self, task: Task) -> Estimate:
        drawn = self._drawn(task)
        return self._rated(drawn.images if drawn else None)

    def _calibrate(self, task: Task) -> Estimate:
        size = self.sizes(task.dataset)
        return self._rated(size.train_images if size else None)

    def _fidelity(self, task: Task) -> Estimate:
        """Drawn and real images are looked at as CLIP looks at them, boxes not counted; one file."""
        drawn, size = self._drawn(task), self.sizes(task.dataset)
        images = drawn.images + size.train_images if drawn and size else None
        estimate = self._rated(images)
        estimate.stored = self.costs.files.metrics
        return estimate

    def _measure_set(self, task: Task) -> Estimate:
        return Estimate(work=1, unit="sets", stored=self.costs.files.score)

    _label_quality = _measure_set  # of some hundred rendered scenes; in the miniature alone

    def _rated(self, images: int | None) -> Estimate:
        if images is None:
            return Estimate(work=None, unit="images", seconds=None, stored=None)
        speed = self._speed("float32")
        seconds = images * self.models.clip / speed if speed else None
        return Estimate(0, images, "images", seconds, images * self.costs.files.score)

    def _detect(self, task: Task) -> Estimate:
        drawn = self._drawn(task)
        if drawn is None:
            return Estimate(work=None, unit="images", seconds=None, stored=None)
        return self._asked(task, task.engine, drawn.images)

    def _detect_real(self, task: Task) -> Estimate:
        size = self.sizes(task.dataset)
        return self._asked(task, None, size.train_images if size else None)

    def _asked(self, task: Task, images: str | None, count: int | None) -> Estimate:
        """Detections in `count` images: as many as whoever asks for the most."""
        if count is None:
            return Estimate(work=None, unit="images", seconds=None, stored=None)
        asked = [
            it.max_per_image
            for it in self.project.asked()
            if it.images == images and it.training == task.training
        ]
        most = max(asked, default=AgreementSettings().max_per_image)  # nobody but `fidelity` asks
        seconds = self._predicting(task.training.settings.config, count)
        return Estimate(0, count, "images", seconds, count * most * self.costs.files.detection)

    def _label(self, task: Task) -> Estimate:
        size, settings = self.sizes(task.dataset), self.project.engines[task.engine].settings
        work = labelling(settings, size) if size else None
        if work is None:
            return Estimate(work=None, unit="images", seconds=None, stored=None)
        seconds, stored = self._seconds(task, work), self._labels(self._drawn(task))
        return Estimate(work=work.images, unit="images", seconds=seconds, stored=stored)

    def _predicting(self, config: str, images: int) -> float | None:
        speed = self.device and self.device.predicted_images.get(config)
        return images / speed if speed else None

    # --- detectors ------------------------------------------------------------------------------------

    def _train(self, task: Task) -> Estimate:
        """Length times batch; what the images are does not matter."""
        iterations, batch = training_length(task.training, self.project.root)
        config, files = task.training.settings.config, self.costs.files
        speed, weights = self.device and self.device.trained_images.get(config), files.weights.get(config)
        return Estimate(
            work=iterations * batch,
            unit="images seen",
            seconds=iterations * batch / speed if speed else None,
            stored=weights + iterations * files.iteration if weights else None,
            passing=self._kept(task, iterations * batch),
        )

    def _kept(self, task: Task, visits: int) -> float | None:
        """Features on the disk while a detector on a frozen model is trained (`KeptFeatures`): a file for
        each guise of an image and each of its noises, and no more than there are visits."""
        training, size = task.training, self.sizes(task.dataset)
        config = self.project.root / training.settings.config
        draws = kept_draws(config)
        if not (draws and training.settings.diffusion):
            return 0.0
        pixel = self.costs.files.features.get(PurePosixPath(training.settings.diffusion.path).name)
        drawn = [self._drawn(replace(task, engine=engine)) for engine in training.synthetic]
        if size is None or pixel is None or None in drawn:
            return None
        images = training.real * size.train_images + sum(it.images for it in drawn)
        ways, area = guises(config)
        files = visits if ways is None else min(visits, images * ways * draws)
        return files * pixel * (area or size.pixels)

    def _predict(self, task: Task) -> Estimate:
        size, limit = self.sizes(task.dataset), self.project.config.evaluation.max_per_image
        if size is None:
            return Estimate(work=None, unit="images", seconds=None, stored=None)
        seconds = self._predicting(task.training.settings.config, size.val_images)
        found = size.val_images * (limit or max(MAX_DETECTIONS.values()))
        return Estimate(0, size.val_images, "images", seconds, found * self.costs.files.prediction)

    def _measure(self, task: Task) -> Estimate:
        size = self.sizes(task.dataset)
        return Estimate(0, size and size.val_images, "images", 0.0, self.costs.files.metrics)

    def _export(self, task: Task) -> Estimate:
        """A copy of the generated images, and of the real ones where these are in it."""
        drawn, size = self._generate(task), self.sizes(task.dataset)
        stored = drawn.stored
        if task.merged and size is not None and stored is not None:
            real = (size.train_images + size.val_images) * size.pixels * self.costs.files.jpg_pixel
            stored += real + size.annotation_bytes
        return Estimate(work=1, unit="folders", stored=stored)

    def _page(self, task: Task) -> Estimate:
        return Estimate(work=task.jobs, unit="pages", stored=task.jobs * self.costs.files.page)


def training_length(training: Training, root: Path) -> tuple[int, int]:
    """(iterations, images of a batch) of one training, from its mmengine config file, which is read, not run.

    Raises:
        InputError: the file does not assign `max_iters` and `batch_size` plain numbers.
    """
    settings, found = training.settings, {}
    for file in reversed(config_files(root / settings.config)):
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                found |= {ast.unparse(target): statement.value.value for target in statement.targets}
    for name in ("max_iters", "batch_size"):
        if not isinstance(found.get(name), int):
            raise InputError(f"{settings.config}: {name}: not given as a plain number")
    iterations = max(1, round((settings.iterations or found["max_iters"]) * settings.schedule))
    return iterations, found["batch_size"]


def datasets_of_unknown_size(estimator: Estimator, found: Iterable[Task]) -> list[str]:
    """Data sets whose size nobody knows yet."""
    names = unique(task.dataset for task in found if task.dataset)
    return [name for name in names if estimator.sizes(name) is None]
