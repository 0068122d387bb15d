"""How right labels are where the truth is known: in scenes that the miniature renders (supplement, S1).

Held-out scenes of one or two objects are encoded, get the noise of time step 1, and are labelled under the
prompt that names what they show, as drawn images are. The paper measures the same on 200 labelled images.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.data.datasets import Dataset
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.shards import image_folder, load_shard, read_array
from gen4det.diffusion.latents import encode
from gen4det.diffusion.noise import draw_noise, image_generator
from gen4det.diffusion.replay import add_noise, noise_schedule
from gen4det.diffusion.words import caption_of, spoken_name
from gen4det.engines.instagen.draw import LATENTS
from gen4det.engines.instagen.feature_bank import FeatureBank, texts_of
from gen4det.engines.instagen.label import renamed
from gen4det.engines.instagen.samples import Found, base_labels, slots_of
from gen4det.engines.instagen.saved_head import kept_epochs, load_head
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.instagen.teacher import found_by
from gen4det.engines.instagen.vocabulary import Vocabulary, vocabulary
from gen4det.engines.shard_writer import FIRST_IMAGE_ID
from gen4det.filters.agreement import box_iou
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.corpus import corpus_item
from gen4det.miniature.foundation_settings import FoundationTraining

STEP = 1
"""The last time step of a generation."""
BATCH = 16
OVERLAP = 0.5
"""IoU from which a label is that of an object."""
KINDS = ("base", "novel")
BETAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Least scores that the last head is measured at, beside the engine's own."""
Truth = tuple[int, list[float]]
"""An object: category id, [x, y, width, height] in pixels."""


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes, described as drawn images are."""

    records: list[dict]
    images: np.ndarray
    """uint8 (scenes, side, side, 3)."""
    truth: list[list[Truth]]
    latents: torch.Tensor
    """float32 (scenes, channels, cells, cells), as if they entered the last step of a generation."""


def rendered_scenes(count: int, prompt: str, bank: FeatureBank) -> Scenes:
    """Scenes of a stream of their own: nothing has learned from them."""
    settings, vae = FoundationTraining(), bank.pipeline.vae
    schedule, cell = noise_schedule(bank.pipeline.scheduler), bank.pipeline.vae_scale_factor
    scenes = [corpus_item(settings, number, "pseudo labels").scene for number in range(count)]
    side = settings.image_size
    records, truth = [], []
    for number, scene in enumerate(scenes):
        shown = {placed.category.id: placed.category.name for placed in scene.objects}
        records.append({
            "id": number, "file_name": f"{number:06d}.png", "width": side, "height": side,
            "last_step": STEP, "categories": list(shown), "prompt": caption_of(list(shown.values()), prompt),
        })  # fmt: skip
        truth.append([(placed.category.id, list(placed.box)) for placed in scene.objects])
    images = np.stack([scene.image for scene in scenes])
    shape = (vae.config.latent_channels, side // cell, side // cell)
    latents = []
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        generators = [image_generator(seed_for("scene", number)) for number in numbers]
        with torch.no_grad():
            clean = encode(vae, images[first : first + BATCH], draw_noise(generators, shape, bank.device))
        latents.append(add_noise(schedule, clean, draw_noise(generators, shape, bank.device), STEP).cpu())
    return Scenes(records, images, truth, torch.cat(latents))


def matched(found: Sequence[Found], truth: Sequence[Truth]) -> int:
    """Labels, best first, that overlap an object of their category by half, each of those once."""
    left, right = list(truth), 0
    for category, _, box in sorted(found, key=lambda it: -it[1]):
        for place, (wanted, true_box) in enumerate(left):
            if wanted == category and box_iou(np.array([box]), np.array([true_box]))[0, 0] >= OVERLAP:
                right += 1
                del left[place]
                break
    return right


def counted(
    found: Iterable[Sequence[Found]], truth: Iterable[Sequence[Truth]], words: Vocabulary
) -> dict[str, dict[str, int]]:
    """By kind of category {"right": labels that are, "labels": all of them, "objects": that are there}."""
    sums = {kind: dict.fromkeys(("right", "labels", "objects"), 0) for kind in KINDS}
    for of_image, there in zip(found, truth, strict=True):
        for kind, categories in (("base", words.base), ("novel", words.novel)):
            labels, objects = ([it for it in some if it[0] in categories] for some in (of_image, there))
            own = {"right": matched(labels, objects), "labels": len(labels), "objects": len(objects)}
            sums[kind] = {key: value + own[key] for key, value in sums[kind].items()}
    return sums


class LabelQuality:
    """Measures one fitted head and the labelling detector.

    Args:
        settings: of the variant.
        bank: the model whose features its head sees.
        head: folder of the head.

    Raises:
        InputError: not the miniature's categories; a head of another model.
    """

    def __init__(self, settings: Settings, dataset: Dataset, bank: FeatureBank, head: Path):
        self.settings, self.bank = settings, bank
        self.words = vocabulary(dataset, settings.vocabulary)
        self.names = {category["id"]: spoken_name(category) for category in dataset.categories}
        known = {it.id: spoken_name({"name": it.name}) for it in CATEGORIES}
        if other := next((it for it in self.names if known.get(it) != self.names[it]), None):
            raise InputError(
                f"{dataset.path}: category {self.names[other]!r} is none of the miniature's, whose scenes "
                "are the only ones with a truth to measure labels by"
            )
        self.vectors = bank.vectors(dataset.categories)
        self.kept = kept_epochs(head)
        self.heads = {count: load_head(head, bank, path) for count, path in self.kept.items()}
        self.heads[settings.head.epochs] = load_head(head, bank)
        self.teaches = settings.head.self_training_from if self.words.novel else None

    def found(self, head, features: list[torch.Tensor], records: Sequence[dict], least: float):
        """Labels of all prompted categories above a score, by image."""
        text, named = texts_of(records, self.vectors), slots_of(records)
        device = features[0].device
        return found_by(
            head, features, text.to(device), named.to(device), list(records), self.words.known, least
        )

    def of_heads(self, scenes: Scenes) -> dict:
        """{"curve": [{"epochs", "base", "novel"}, ...] at beta, rising, the last head last, and "betas":
        [{"beta", "base", "novel"}, ...] of the last head}; see `counted`."""
        beta, last = self.settings.beta, self.settings.head.epochs
        least = min(beta, *BETAS)
        found: dict[int, list] = {count: [] for count in self.heads}
        for first in range(0, len(scenes.records), BATCH):
            records = scenes.records[first : first + BATCH]
            features = self.bank(scenes.latents[first : first + BATCH], records)
            for count, head in self.heads.items():
                found[count] += self.found(head, features, records, least)

        def above(labels: list[list[Found]], score: float) -> dict:
            chosen = [[it for it in of_image if it[1] > score] for of_image in labels]
            return counted(chosen, scenes.truth, self.words)

        return {
            "curve": [{"epochs": count} | above(labels, beta) for count, labels in found.items()],
            "betas": [{"beta": it} | above(found[last], it) for it in sorted({beta, *BETAS})],
        }

    def of_detector(self, scenes: Scenes, weights: Path) -> dict:
        """The labelling detector: base categories at alpha, and, the control, whatever it finds under the
        name of the one category that was asked for."""
        from gen4det.detection.inference import predict

        settings, answers = self.settings, {str(it["id"]): [] for it in scenes.records}
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "scenes.zip"
            with ShardWriter(archive) as writer:
                for record, image in zip(scenes.records, scenes.images, strict=True):
                    writer.add(record["file_name"], encode_image(image, "png"))
            for it in predict(
                weights,
                ImageStore(archive),
                scenes.records,
                device=str(self.bank.device),
                max_per_image=settings.labeller.max_per_image,
                masks=False,
            ):
                answers[str(it["image_id"])].append([it["category_id"], it["score"], *it["bbox"]])
        limit = settings.labels.detector_score

        def labels(record: dict) -> list[Found]:
            own = base_labels(answers[str(record["id"])], record["categories"], self.words, settings.alpha)
            other = renamed(record, answers, settings.labels.overlap)
            return own + [it for it in other if it[1] > limit and it[0] in self.words.novel]

        return counted(map(labels, scenes.records), scenes.truth, self.words)

    def pictures(self, shard: Path, count: int) -> tuple[list[dict], list[np.ndarray]]:
        """Drawn images of base and of novel categories, with labels before self-training and after it.

        Args:
            shard: label file of a drawn shard.
            count: of either kind, at most.

        Returns:
            For each image {"set", "names", "before", "after": [[score, [x, y, width, height]], ...]}, and the
            images, uint8 (H, W, 3). Without a head that was kept before self-training "before" is missing.
        """
        drawn = load_shard(shard)
        store, archive = ImageStore(image_folder(shard, drawn)), Path(drawn["info"]["archive"]).name
        chosen = [
            record
            for kind in KINDS
            for record in one_of_each([it for it in drawn["images"] if it["set"] == kind], count)
        ]
        if not chosen:
            return [], []
        arrays = [read_array(store, archive, it["id"] - FIRST_IMAGE_ID, LATENTS) for it in chosen]
        features = self.bank(torch.from_numpy(np.stack(arrays)), chosen)
        shown = [
            {"set": it["set"], "names": [self.names[category] for category in it["categories"]]}
            for it in chosen
        ]
        for when, epochs in (("before", self.before), ("after", self.settings.head.epochs)):
            if epochs is None:
                continue
            found = self.found(self.heads[epochs], features, chosen, self.settings.beta)
            for entry, of_image in zip(shown, found, strict=True):
                entry[when] = [[score, box] for _, score, box in of_image]
        return shown, [store.image(f"{archive}/{Path(it['file_name']).name}") for it in chosen]

    @property
    def before(self) -> int | None:
        """Epochs of the last head that was kept before the teacher began to label; None: there is none."""
        earlier = [count for count in self.kept if self.teaches is not None and count <= self.teaches]
        return max(earlier, default=None)


def one_of_each(records: Sequence[dict], count: int) -> list[dict]:
    """Images whose own categories differ, evenly spread over them."""
    first = list({it["categories"][0]: it for it in reversed(records)}.values())[::-1]
    places = np.linspace(0, len(first) - 1, min(count, len(first))).astype(int)
    return [first[place] for place in places]


def measure(
    settings: Settings,
    dataset: Dataset,
    bank: FeatureBank,
    *,
    head: Path,
    detector: Path,
    shard: Path,
    scenes: int,
    shown: int,
) -> tuple[dict, list[np.ndarray]]:
    """All of it, JSON-serialisable, and the pictures that "shown" describes; see `LabelQuality`. Where the
    detector labels novel categories, it alone is measured."""
    by_head = settings.labels.novel_by == "head"
    quality = LabelQuality(settings, dataset, bank, head)
    truth = rendered_scenes(scenes, settings.prompt, bank)
    described, images = quality.pictures(shard, shown if by_head else 0)
    return {
        "scenes": scenes,
        "novel_by": settings.labels.novel_by,
        "alpha": settings.alpha,
        "beta": settings.beta,
        "detector_score": settings.labels.detector_score,
        "begins": quality.teaches,
        "before": quality.before,
        **(quality.of_heads(truth) if by_head else {"curve": [], "betas": []}),
        "detector": quality.of_detector(truth, detector),
        "shown": described,
    }, images
