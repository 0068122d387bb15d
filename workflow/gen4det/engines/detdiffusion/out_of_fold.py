"""Detections in real images by detectors that have not seen them: each is trained on all folds but one.

A detector finds most of what it was trained on, so attributes by one that saw the images are optimistic.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from gen4det.core.provenance import content_hash, seed_for
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import Dataset, DatasetDescriptor, SplitDescriptor, load_dataset, write_dataset
from gen4det.detection.inference import predict
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.detection.training import train
from gen4det.filters.agreement import compact
from gen4det.training.stop import Deadline


def fold_of(image: int, folds: int, seed: int) -> int:
    """The fold of a training image; by a hash, so that it does not depend on the other images."""
    return seed_for(seed, "fold", image) % folds


def out_of_fold(
    dataset: Dataset,
    detector: DetectorSettings,
    folds: int,
    seed: int,
    work: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    stop: Deadline | None = None,
) -> dict[str, list[list[float]]] | None:
    """Detections in all training images, by image id as the stage `detect` stores them.

    Args:
        folds: how many detectors are trained, at least 2.
        seed: of the folds and of the trainings.
        work: folder kept between calls: a training that was stopped goes on, a finished one is not repeated.

    Returns:
        None, if it was stopped before all were trained.

    Raises:
        InputError: a fold leaves nothing to train on, or `detection.training.train`'s.
    """
    data, found = dataset.train.load(), {}
    for fold, part in enumerate(_parts(dataset, data, folds, seed, work)):
        weights = work / f"fold{fold}" / "weights.safetensors"
        if not weights.exists():
            fingerprint = {"fold": [fold, folds, seed], "dataset": part.train.hash}
            fingerprint["detector"] = content_hash(detector.model_dump(mode="json"))
            settings = TrainSettings(detector=detector, seed=seed)
            done = train(
                settings,
                part,
                [],
                weights,
                fingerprint=fingerprint,
                device=device,
                workers=workers,
                stop=stop,
            )
            if not done.finished:
                return None
        unseen = [image for image in data["images"] if fold_of(image["id"], folds, seed) == fold]
        found |= compact(
            predict(weights, dataset.train.images, unseen, device=device, masks=False, workers=workers)
        )
    return found


def _parts(dataset: Dataset, data: dict, folds: int, seed: int, work: Path) -> Iterator[Dataset]:
    """The data set without the training images of one fold, for each fold."""
    for fold in range(folds):
        kept = {image["id"] for image in data["images"] if fold_of(image["id"], folds, seed) != fold}
        folder = work / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        write_annotations(folder / "train.json", data | {
            "images": [image for image in data["images"] if image["id"] in kept],
            "annotations": [label for label in data["annotations"] if label["image_id"] in kept],
        })  # fmt: skip
        splits = {}
        for name, split in (("train", dataset.train), ("val", dataset.val)):
            own = "train.json" if name == "train" else os.path.relpath(split.annotations_path, folder)
            splits[name] = SplitDescriptor(
                annotations=own,
                images=os.path.relpath(split.images_path, folder),
                images_sha256=split.images_sha256,
                white=split.white,
            )
        path = folder / "dataset.json"
        write_dataset(path, DatasetDescriptor(name=f"fold{fold}", format=dataset.format, **splits))
        yield load_dataset(path)
