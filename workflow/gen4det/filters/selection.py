"""From the shards of a run to one synthetic set: what is offered for training, and what is not and why."""

import csv
import io
from collections import Counter
from dataclasses import dataclass

from gen4det.core.errors import InputError
from gen4det.data.annotations import category_counts, frequency_groups
from gen4det.data.datasets import Format
from gen4det.data.masks import area_of_rle, box_of_rle, polygons_to_rle, rle_to_polygons
from gen4det.filters.measurements import Measurements
from gen4det.filters.settings import FilterSettings
from gen4det.filters.verdicts import UNUSED, split_labels


@dataclass(frozen=True)
class Selection:
    """All labels of a run, split into kept and rejected; together they are what the engine was asked for."""

    images: list[dict]
    """Every generated image, by id."""
    kept: list[dict]
    rejected: list[dict]
    """Each with "reason": a rule of the engine, or the name of a filter setting."""
    categories: list[dict]
    """Of the training split."""


def select(
    shards: list[dict],
    training: dict,
    settings: FilterSettings,
    measured: Measurements = Measurements(),  # noqa: B008  (immutable)
) -> Selection:
    """Split the labels of all shards of a run into kept and rejected ones.

    Records are ordered by image, so that the outcome does not depend on the number of shards.

    Args:
        shards: as `data.shards.load_run` gives them.
        training: the training split the engine generated for; its categories are those of the set.
        measured: what filters look at beside the labels.

    Raises:
        InputError: the shards know categories that the training split does not have.
    """
    images = sorted((image for shard in shards for image in shard["images"]), key=lambda image: image["id"])
    annotations = sorted((a for shard in shards for a in shard["annotations"]), key=lambda a: a["id"])
    names = {category["id"]: category["name"] for category in training["categories"]}
    for category in shards[0]["categories"]:
        identifier, name = category["id"], category["name"]
        if names.get(identifier) != name:
            raise InputError(
                f"shards: drawn for another data set: their category {identifier} is {name!r}, "
                f"here it is {names.get(identifier)!r}"
            )
    kept, rejected = split_labels(images, annotations, settings, measured)
    rejected += [label for shard in shards for label in shard["rejected"]]
    rejected.sort(key=lambda label: (label["image_id"], label.get("id", 0)))
    return Selection(images, kept, rejected, training["categories"])


# --- export ---------------------------------------------------------------------------------------


def synthetic_set(
    selection: Selection, training: dict, form: Format, segmentation: str, image_folder: str
) -> dict:
    """The annotation file that detectors are trained on: images with at least one kept label.

    LVIS: `image_count` and `instance_count` are those of the synthetic set, categories without a label
    are left out, `frequency` stays the training split's (released code of MosaicFusion). No category is
    claimed to be absent from an image (`neg_category_ids` is empty); one whose label was rejected is not
    exhaustively labelled in it.

    Args:
        segmentation: "rle" or "polygon".
        image_folder: where the shards lie, relative to the file; becomes info.images.
    """
    annotations = [_exported(a, form, segmentation) for a in selection.kept]
    labelled = {annotation["image_id"] for annotation in annotations}
    unlabelled: dict[int, set[int]] = {}
    for label in selection.rejected:
        unlabelled.setdefault(label["image_id"], set()).add(label["category_id"])
    images = []
    for image in selection.images:
        if image["id"] not in labelled:
            continue
        if form == "lvis":
            incomplete = sorted(unlabelled.get(image["id"], ()))
            image = {
                **image,
                "coco_url": image["file_name"],
                "neg_category_ids": [],
                "not_exhaustive_category_ids": incomplete,
            }
        images.append(image)
    return {
        "info": {"description": "synthetic training images", "images": image_folder},
        "images": images,
        "annotations": annotations,
        "categories": _counted_categories(annotations, training, form),
    }


def _counted_categories(annotations: list[dict], training: dict, form: Format) -> list[dict]:
    groups = frequency_groups(training)
    counts = category_counts({"annotations": annotations, "categories": training["categories"]})
    labelled = {annotation["category_id"] for annotation in annotations}  # perhaps by a crowd region alone
    categories = []
    for category in training["categories"]:
        images, instances = counts[category["id"]]
        if category["id"] not in labelled:
            continue
        if form == "lvis":
            group = groups[category["id"]]
            category = {**category, "frequency": group, "image_count": images, "instance_count": instances}
        categories.append(category)
    return categories


def _exported(annotation: dict, form: Format, segmentation: str) -> dict:
    annotation = dict(annotation)
    if form == "coco":
        annotation.setdefault("iscrowd", 0)
    rle = annotation.get("segmentation")
    if rle is not None and segmentation == "polygon":
        polygons = rle_to_polygons(rle)
        filled = polygons_to_rle(polygons, *rle["size"])  # polygons have no holes
        annotation.update(segmentation=polygons, area=float(area_of_rle(filled)), bbox=box_of_rle(filled))
    return annotation


def rejected_labels(selection: Selection, image_folder: str) -> dict:
    """What was not kept: labels with reasons, how often each reason occurs, and the images concerned."""
    concerned = {label["image_id"] for label in selection.rejected}
    concerned |= {image["id"] for image in selection.images} - {a["image_id"] for a in selection.kept}
    return {
        "info": {"description": "generated, but not offered for training", "images": image_folder},
        "images": [image for image in selection.images if image["id"] in concerned],
        "rejected": selection.rejected,
        "reasons": dict(Counter(label["reason"] for label in selection.rejected)),
        "categories": selection.categories,
    }


# --- table ----------------------------------------------------------------------------------------

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


def kept_fractions(selection: Selection, training: dict) -> list[dict]:
    """How many labels were generated and kept: all, per frequency group, per category.

    Counted are objects that were drawn and judged: not those of a real image around them ("real"), not
    crowds, not images beyond `generations_per_reference`, which are not used at all.

    Returns:
        Rows with the keys level ("all", "frequency", "category"), id (of a category, else None), name,
        frequency, generated, kept, rejected, kept_fraction (None where nothing was generated) and one key per
        reason of a rejection, in alphabetical order.
    """
    groups = frequency_groups(training)
    kept = Counter(label["category_id"] for label in selection.kept if _drawn(label))
    rejected = Counter(
        (label["category_id"], label["reason"])
        for label in selection.rejected
        if _drawn(label) and label["reason"] != UNUSED
    )
    reasons = sorted({reason for _, reason in rejected})

    def row(level: str, name: str, categories: list[int], identifier: int | None, group: str | None) -> dict:
        by_reason = {reason: sum(rejected[c, reason] for c in categories) for reason in reasons}
        good, bad = sum(kept[c] for c in categories), sum(by_reason.values())
        return {
            "level": level,
            "id": identifier,
            "name": name,
            "frequency": group,
            "generated": good + bad,
            "kept": good,
            "rejected": bad,
            "kept_fraction": round(good / (good + bad), 4) if good + bad else None,
            **by_reason,
        }

    every = [category["id"] for category in selection.categories]
    rows = [row("all", "all", every, None, None)]
    for group, name in GROUPS.items():
        rows.append(row("frequency", name, [c for c in every if groups[c] == group], None, group))
    for category in selection.categories:
        identifier = category["id"]
        rows.append(row("category", category["name"], [identifier], identifier, groups[identifier]))
    return rows


def _drawn(label: dict) -> bool:
    return not (label.get("real") or label.get("iscrowd"))


def to_csv(rows: list[dict]) -> str:
    """Rows of equal keys as CSV with a header; None becomes an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
