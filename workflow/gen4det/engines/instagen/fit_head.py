"""Fit the grounding head: on base categories, then also on what a teacher finds of novel ones (3.4)."""

import logging
from pathlib import Path

import numpy as np
import torch

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, seed_for
from gen4det.detection.grounding_head import GroundingHead, Objects
from gen4det.diffusion.settings import ModelSource
from gen4det.engines import base
from gen4det.engines.instagen.course import NOVEL, Course
from gen4det.engines.instagen.feature_bank import FeatureBank, texts_of
from gen4det.engines.instagen.samples import DrawnImages, Sample, objects_of, slots_of
from gen4det.engines.instagen.saved_head import EPOCHS, keep_student, save_head
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.instagen.teacher import Teacher
from gen4det.engines.instagen.vocabulary import Vocabulary, require_no_leak, vocabulary
from gen4det.training import processes
from gen4det.training.loop import train
from gen4det.training.stop import Deadline
from gen4det.training.work_folder import WorkFolder

log = logging.getLogger(__name__)


class Fit(base.Fit):
    """The U-Net is no part of what learns: in no optimiser, average, checkpoint or model."""

    settings: Settings

    def fit(self, work: Path, fingerprint: dict, output: Path, stop: Deadline) -> dict:
        """See `base.Fit.fit`."""
        chosen = self.settings.head
        words = vocabulary(self.dataset, self.settings.vocabulary)
        require_no_leak(self.dataset, words)
        bank = feature_bank(self)
        images = DrawnImages(
            self.inputs.shards["images"], self.inputs.detections["images"], words, self.settings.alpha
        )
        lesson = Lesson(self, bank, images, words, work / EPOCHS)
        with WorkFolder(work, fingerprint, doing="fitting") as folder:
            facts = lesson.facts()
            if lesson.course.steps:
                facts |= train(
                    [lesson.student, *([lesson.teacher] if lesson.teacher else [])],
                    lesson,
                    steps=lesson.course.steps,
                    work=folder,
                    learning_rate=chosen.learning_rate,
                    schedule=lesson.rate,
                    betas=(0.9, 0.999),
                    weight_decay=chosen.weight_decay,
                    max_norm=chosen.max_norm,
                    parts=chosen.batch_size // chosen.micro_batch,
                    seed=lesson.seed,
                    device=self.device,
                    stop=stop,
                    title="head",
                )
            if processes.is_first():
                with atomic_write(output) as model:
                    save_head(model, lesson.student, bank, lesson.teacher, lesson.kept)
        processes.wait()
        return facts | lesson.facts()


def feature_bank(worker: base.StepWorker) -> FeatureBank:
    """The model whose features the head sees, as the settings say."""
    chosen = worker.settings.features
    fitted = ModelSource(path=str(worker.inputs.models["generator"]))
    source = fitted if chosen.model == "generator" else worker.foundation.diffusion
    return FeatureBank(source, chosen.precision, worker.device)


class Lesson:
    """The loss of a step, as `training.loop` asks for it.

    Args:
        worker: the step.
        images: what was drawn.
        kept: folder for the students after some epochs, if they are asked for.

    Raises:
        InputError: the labelling detector found nothing to begin with.
    """

    def __init__(
        self,
        worker: base.StepWorker,
        bank: FeatureBank,
        images: DrawnImages,
        words: Vocabulary,
        kept: Path | None = None,
    ):
        self.kept = kept
        self.chosen, self.beta = worker.settings.head, worker.settings.beta
        self.bank, self.images, self.words = bank, images, words
        self.novel = frozenset(words.novel)
        self.vectors = bank.vectors(worker.dataset.categories)
        self.seed = seed_for(worker.run_seed, worker.settings.method, "head", self.chosen.seed)
        self.sets = images.base_set(), images.novel_set(self.chosen.novel_per_category)
        if self.chosen.epochs and not self.sets[0]:
            raise InputError(
                f"instagen: the labelling detector found no base category with a score of alpha = "
                f"{worker.settings.alpha} in {len(images.samples)} images; lower alpha, or train it longer"
            )
        self_training = self.chosen.self_training_from if self.sets[1] else None
        self.course = Course(
            *(len(samples) for samples in self.sets),
            batch_size=self.chosen.batch_size,
            epochs=self.chosen.epochs,
            novel_from=self_training,
            seed=self.seed,
        )
        torch.manual_seed(self.seed)
        self.student = GroundingHead(
            bank.channels, bank.text_channels, self.chosen.shape, self.chosen.losses
        ).to(bank.device)
        teaches = self_training is not None and self_training < self.chosen.epochs
        self.teacher = Teacher(self.student, self.chosen.momentum).to(bank.device) if teaches else None
        self._followed = -1  # the last step that the teacher was ready for

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step."""
        last = self.course.epoch(step) >= self.chosen.epochs - self.chosen.last_epochs
        rising = min(1.0, (step + 1) / self.chosen.warmup) if self.chosen.warmup else 1.0
        return rising * (0.1 if last and self.chosen.epochs > self.chosen.last_epochs else 1.0)

    def __call__(self, step: int, rng: np.random.Generator, part: int) -> dict[str, torch.Tensor]:
        """Losses of one part of a step's batch."""
        if part == 0:
            self._keep(step)
        if self.teacher is not None and step >= self.course.hand_over and self._followed != step:
            self.teacher.follow(self.student, begin=step == self.course.hand_over)
            self._followed = step
        kind, numbers = self.course.batch(step)
        size = self.chosen.micro_batch
        samples = [self.sets[kind][number] for number in numbers[part * size : (part + 1) * size]]
        return self.losses(samples, with_teacher=kind == NOVEL)

    def _keep(self, step: int) -> None:
        """Before the first step of an epoch, the student of those before it, if it is asked for."""
        epoch, every = self.course.epoch(step), self.chosen.keep_every
        begins = step > 0 and epoch > self.course.epoch(step - 1)
        if begins and every and epoch % every == 0 and self.kept is not None and processes.is_first():
            keep_student(self.kept, self.student, epoch)

    def losses(self, samples: list[Sample], *, with_teacher: bool) -> dict[str, torch.Tensor]:
        """Losses of some images. With a teacher those in which it finds nothing new are left out; if nothing
        is left, the loss is zero and so is its gradient."""
        records = [sample.record for sample in samples]
        latents = self.images.latents(samples)
        features = self.bank(latents, records)
        device = features[0].device
        text, named = texts_of(records, self.vectors).to(device), slots_of(records).to(device)
        found = [sample.found for sample in samples]
        if with_teacher:
            seen = features if self.chosen.shared_features else self.bank(latents, records)
            new = self.teacher.labels(seen, text, named, records, self.novel, self.beta)
            kept = [number for number, of_image in enumerate(new) if of_image]
            if not kept:
                return {"loss_cls": sum((it * 0).sum() for it in self.student.parameters())}
            found = [found[number] + new[number] for number in kept]
            records = [records[number] for number in kept]
            features, text, named = [it[kept] for it in features], text[kept], named[kept]
        self.student.train()
        objects = [objects_of(of_image, record) for of_image, record in zip(found, records, strict=True)]
        objects = [Objects(it.boxes.to(device), it.slots.to(device)) for it in objects]
        learned = slots_of(records, self.words.known).to(device)
        width = learned.shape[1]  # without the images left out there may be fewer classes
        text, named = text[:, :width], named[:, :width]
        return self.student.loss(self.student(features, text, named), objects, learned)

    def facts(self) -> dict:
        """For the record."""
        return {
            "images_base": len(self.sets[0]),
            "images_novel": len(self.sets[1]) if self.teacher is not None else 0,
            "labels_base": sum(len(sample.found) for sample in self.sets[0]),
            "features_of_images": self.bank.passes,
        }
