"""Subsets of the training images or labels of a data set, as a data set of their own.

Everything downstream reads the descriptor of the subset alone: detectors, engines and filters see no other
training image.
"""

import os
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.data.annotations import category_counts, counted_groups, frequency_groups
from gen4det.data.category_splits import SPLITS, with_splits
from gen4det.data.datasets import (
    DatasetDescriptor,
    Split,
    SplitDescriptor,
    load_dataset,
    write_dataset,
    write_split,
)
from gen4det.data.source_settings import SubsetDataset
from gen4det.data.spool import kept, load_spooled


def write_subset(
    name: str, settings: SubsetDataset, whole: str | Path, output: str | Path
) -> tuple[int, int]:
    """Write dataset.json, train.json and its table of a subset; images and validation stay where they are.

    Args:
        name: of the subset.
        whole: descriptor of the data set it is taken from.
        output: the subset's descriptor.

    Returns:
        Number of training images of the subset and of the whole.

    Raises:
        InputError: the whole data set is unusable.
    """
    output = Path(output)
    dataset = load_dataset(whole)
    everything = load_spooled(dataset.train.annotations_path, output.parent)
    labelled = everything
    if settings.labels != "all":
        labelled = of_base_categories(everything, settings, dataset.train.annotations_path)
    training = restrict(labelled, settings.share, settings.seed)
    train = _descriptor(dataset.train, output.parent) | write_split(output.parent, "train", training)
    val = _descriptor(dataset.validation, output.parent)
    splits = {"train": SplitDescriptor(**train), "val": SplitDescriptor(**val)}
    categories = training["categories"]
    write_dataset(
        output, DatasetDescriptor(name=name, format=dataset.format, categories=categories, **splits)
    )
    return len(training["images"]), len(everything["images"])


def of_base_categories(annotations: dict, settings: SubsetDataset, source: str | Path) -> dict:
    """All images and categories, with the labels of base categories alone.

    Args:
        source: of the annotations, for errors.

    Returns:
        Annotations whose categories have "split": base, novel, or null for those that are neither.

    Raises:
        InputError: no category is base, or none is novel.
    """
    categories = annotations["categories"]
    if settings.labels == "not-rare":
        groups = frequency_groups(annotations)
        categories = [it | {"split": "novel" if groups[it["id"]] == "r" else "base"} for it in categories]
    elif settings.split is not None:
        categories = with_splits(categories, settings.split)
    found = {category.get("split") for category in categories}
    for kind in SPLITS:
        if kind not in found:
            known = "no LVIS group tells" if settings.labels == "not-rare" else "name a file of them in split"
            raise InputError(f"{source}: no category is {kind}; {known}")
    base = {category["id"] for category in categories if category.get("split") == "base"}
    labels = kept(annotations["annotations"], lambda label: label["category_id"] in base)
    return annotations | {"categories": categories, "annotations": labels}


def restrict(annotations: dict, share: float, seed: int) -> dict:
    """A share of the images, in their order, with their annotations and all categories.

    Counts of categories, and LVIS's groups, which are counted in training images, are those of the subset.

    Images are ranked by a hash of (seed, image id), so that a smaller share is part of every larger one, and
    no image's rank depends on the others.
    """
    ranked = sorted(annotations["images"], key=lambda image: seed_for(seed, "subset", image["id"]))
    chosen = {image["id"] for image in ranked[: max(1, round(share * len(ranked)))]}
    restricted = annotations | {
        "images": [image for image in annotations["images"] if image["id"] in chosen],
        "annotations": kept(annotations["annotations"], lambda label: label["image_id"] in chosen),
    }
    counts, groups = category_counts(restricted), counted_groups(restricted)
    restricted["categories"] = [_counted(category, counts, groups) for category in annotations["categories"]]
    return restricted


def _counted(category: dict, counts: dict[int, tuple[int, int]], groups: dict[int, str]) -> dict:
    images, instances = counts.get(category["id"], (0, 0))
    own = {"image_count": images, "instance_count": instances}
    if "frequency" in category:
        own["frequency"] = groups.get(category["id"], "r")
    return category | own


def _descriptor(split: Split, folder: Path) -> dict:
    """A split of another data set, seen from this folder."""
    return {
        "annotations": os.path.relpath(split.annotations_path, folder),
        "images": os.path.relpath(split.images_path, folder),
        "images_sha256": split.images_sha256,
        "white": split.white,
        "captions": split.captions_path and os.path.relpath(split.captions_path, folder),
    }
