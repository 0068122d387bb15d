"""Measure a trained detector on the validation images of a data set.

Writes <output>: average precision of boxes and masks after the data set's own protocol (COCO or LVIS), in all
and per category, on 0-100, null where undefined; and <output>.record.json.
"""

import argparse
import logging
from pathlib import Path

from gen4det.core.provenance import RunRecord, file_hash, write_json
from gen4det.core.settings import Settings
from gen4det.data.annotations import category_counts, frequency_groups
from gen4det.data.datasets import Dataset, load_dataset
from gen4det.evaluation.average_precision import MAX_DETECTIONS, average_precision
from gen4det.evaluation.settings import EvaluationSettings
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import torch_device

log = logging.getLogger("gen4det.evaluate")


class EvaluateStageSettings(Settings):
    """Settings of this stage."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured, and how."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--weights", required=True, metavar="FILE", help="what `train` wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="metrics.json")
    parser.add_argument("--predictions", metavar="FILE", help="also write all detections, in COCO's format")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at once")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that load images")
    args = parser.parse_args()
    settings = stage_settings(args, EvaluateStageSettings)
    dataset = load_dataset(args.dataset)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.evaluate",),
        inputs=(args.dataset, dataset.val.annotations_path, args.weights),
    ) as record:
        record.add(**evaluate(args, dataset, settings.evaluation))


def evaluate(args: argparse.Namespace, dataset: Dataset, settings: EvaluationSettings) -> dict:
    """Predict, measure, write.

    Returns:
        Figures for the run record.

    Raises:
        InputError: unusable data or weights, or weights of a detector of other categories.
    """
    truth = dataset.val.load()
    truth["categories"] = _with_training_counts(truth["categories"], dataset)
    limit = settings.max_per_image or MAX_DETECTIONS[dataset.format]

    from gen4det.detection import mmcv_ext
    from gen4det.detection.inference import predict

    device = torch_device(args.device)
    detections = predict(
        Path(args.weights),
        dataset.val.images,
        truth["images"],
        batch_size=args.batch_size,
        device=device,
        max_per_image=limit,
        workers=args.workers,
    )
    if args.predictions:
        write_json(args.predictions, detections)
    measured = average_precision(truth, detections, protocol=dataset.format, settings=settings)
    images_train = {category["id"]: category["image_count"] for category in truth["categories"]}
    for entry in measured["per_category"]:
        entry["images_train"] = images_train[entry["id"]]
    validation = {
        "dataset": dataset.name,
        "annotations_sha256": file_hash(dataset.val.annotations_path),
        "protocol": dataset.format,
        "max_per_image": limit,
        "area_limits": list(settings.area_limits),
    }
    write_json(args.output, {"validation": validation, **measured}, indent=1)
    for kind in ("box", "mask"):
        if measured[kind]:
            log.info("%s AP: %s", kind, _readable(measured[kind]))
    return {
        "images": len(truth["images"]),
        "detections": len(detections),
        "device": device,
        "operators": mmcv_ext.description(device),
    }


def _with_training_counts(categories: list[dict], dataset: Dataset) -> list[dict]:
    """Categories with "image_count" and, for LVIS, "frequency", which describe the training split.

    LVIS's validation file says both; reading its training file, some gigabytes in memory, is then spared.
    """
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
