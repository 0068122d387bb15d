"""Measure what a detector found on the validation images of a data set. No torch, no GPU.

Writes <output>: average precision of boxes and masks after the data set's own protocol (COCO or LVIS), in all
and per category, on 0-100, null where undefined; and <output>.record.json.
"""

import argparse
import logging

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, file_hash, write_json
from gen4det.core.settings import Settings
from gen4det.data.annotations import category_counts, frequency_groups
from gen4det.data.category_splits import with_splits
from gen4det.data.datasets import Dataset, load_dataset
from gen4det.evaluation.average_precision import average_precision
from gen4det.evaluation.predictions import Predictions, images_identity, read_predictions
from gen4det.evaluation.settings import MeasureSettings
from gen4det.stages._cli import run, stage_parser, stage_settings

COUNTED = ("image_count", "instance_count", "frequency")
"""What a category says of the training images."""

log = logging.getLogger("gen4det.measure")


class MeasureStageSettings(Settings):
    """Settings of this stage."""

    evaluation: MeasureSettings = MeasureSettings()
    """What is measured, and how."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json of the images")
    parser.add_argument("--predictions", required=True, metavar="FILE", help="what `predict` wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="metrics.json")
    args = parser.parse_args()
    settings = stage_settings(args, MeasureStageSettings)
    dataset = load_dataset(args.dataset)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.measure",),
        inputs=(args.dataset, dataset.validation.annotations_path, args.predictions),
    ) as record:
        record.add(**measure(args, dataset, settings.evaluation))


def measure(args: argparse.Namespace, dataset: Dataset, settings: MeasureSettings) -> dict:
    """Measure and write.

    Returns:
        Figures for the run record.

    Raises:
        InputError: unusable data, or predictions of other images.
    """
    truth = dataset.validation.load()
    predictions = read_predictions(args.predictions)
    if reason := predictions.about.get("refused"):
        log.warning("nothing to measure: %s", reason)
        write_json(args.output, {"refused": reason})
        return {"refused": reason}
    truth["categories"] = _with_training_counts(truth["categories"], dataset)
    if split := settings.splits.get(dataset.name):
        truth["categories"] = with_splits(truth["categories"], split)
    truth, left_out = _what_was_predicted(truth, predictions, args)
    measured = average_precision(truth, predictions.detections, protocol=dataset.format, settings=settings)
    images_train = {category["id"]: category["image_count"] for category in truth["categories"]}
    for entry in measured["per_category"]:
        entry["images_train"] = images_train[entry["id"]]
    validation = {
        "dataset": dataset.name,
        "annotations_sha256": file_hash(dataset.validation.annotations_path),
        "protocol": dataset.format,
        "max_per_image": predictions.about["max_per_image"],
        "area_limits": list(settings.area_limits),
        "left_out": left_out,
    }
    write_json(args.output, {"validation": validation, **measured}, indent=1)
    for kind in ("box", "mask"):
        if measured[kind]:
            log.info("%s AP: %s", kind, _readable(measured[kind]))
    return {"images": len(truth["images"]), "detections": len(predictions.detections)}


def _what_was_predicted(
    truth: dict, predictions: Predictions, args: argparse.Namespace
) -> tuple[dict, list[str]]:
    """Ground truth of the categories that the detector knows, and the names of the others."""
    if predictions.about.get("images") != images_identity(truth["images"]):
        raise InputError(f"{args.predictions}: of other images than those of {args.dataset}; predict again")
    known = set(predictions.about["categories"])
    left_out = [category["name"] for category in truth["categories"] if category["id"] not in known]
    if left_out:
        log.warning("not measured, since the detector does not know them: %d categories", len(left_out))
    kept = {
        "categories": [category for category in truth["categories"] if category["id"] in known],
        "annotations": [label for label in truth["annotations"] if label["category_id"] in known],
    }
    return truth | (kept if left_out else {}), left_out


def _with_training_counts(categories: list[dict], dataset: Dataset) -> list[dict]:
    """Categories with "image_count" and, for LVIS, "frequency", which describe the training split.

    A subset has the validation file of the whole: what the descriptor says of the training images goes before
    it. LVIS's validation file says both; reading the training file, some gigabytes in memory, is then spared.
    """
    declared = {
        category["id"]: {key: category[key] for key in COUNTED if key in category}
        for category in dataset.declared or ()
    }
    categories = [category | declared.get(category["id"], {}) for category in categories]
    needed = {"image_count", "frequency"} if dataset.format == "lvis" else {"image_count"}
    if all(needed <= category.keys() for category in categories):
        return categories
    training = dataset.train.load()
    counts, groups = category_counts(training), frequency_groups(training)
    filled = []
    for category in categories:
        known = {"image_count": counts.get(category["id"], (0, 0))[0]}
        if dataset.format == "lvis":
            known["frequency"] = groups.get(category["id"], "r")
        filled.append(known | category)
    return filled


def _readable(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in values.items() if value is not None)


if __name__ == "__main__":
    run(main)
