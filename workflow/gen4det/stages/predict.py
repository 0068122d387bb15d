"""Run a trained detector on the validation images of a data set.

Writes <output>, all detections in one compressed file, and <output>.record.json. The stage `measure` says how
good they are; it needs neither the detector nor a GPU.
"""

import argparse
import logging
from pathlib import Path

from gen4det.core.errors import RefusedInput
from gen4det.core.provenance import RunRecord, file_hash
from gen4det.data.datasets import load_dataset
from gen4det.evaluation.categories import match_categories
from gen4det.evaluation.prediction_settings import MAX_DETECTIONS, PredictionSettings
from gen4det.evaluation.predictions import Predictions, images_identity, write_predictions
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device

log = logging.getLogger("gen4det.predict")


class PredictStageSettings(PredictionSettings):
    """Settings of this stage."""

    partial: bool = False
    """Whether categories that only detector or data set knows are left out: for data the detector was not
    trained on. false: they are an error."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json of the images")
    parser.add_argument("--weights", required=True, metavar="FILE", help="what `train` wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="predictions.npz")
    add_device_arguments(parser, workers="processes that load images", batch_size=16)
    args = parser.parse_args()
    settings = stage_settings(args, PredictStageSettings)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.predict",),
        inputs=(args.dataset, args.weights),
    ) as record:
        try:
            record.add(**predict(args, settings))
        except RefusedInput as refusal:  # passed on, for a table that shows the others
            log.warning("nothing to predict with: %s", refusal.reason)
            write_predictions(args.output, Predictions([], {"refused": refusal.reason}))
            record.add(refused=refusal.reason)


def predict(args: argparse.Namespace, settings: PredictStageSettings) -> dict:
    """Predict and write.

    Returns:
        Figures for the run record.

    Raises:
        RefusedInput: there are no weights, and their file says why.
        InputError: unusable data or weights, or weights of a detector of other categories.
    """
    dataset = load_dataset(args.dataset)
    truth = dataset.validation.load()
    limit = settings.max_per_image or MAX_DETECTIONS[dataset.format]

    from gen4det.detection import inference, mmcv_ext
    from gen4det.detection.weights import detector_categories

    ids = match_categories(
        detector_categories(args.weights), truth["categories"], partial=settings.partial, where=args.weights
    )
    left_out = len(truth["categories"]) - len(ids)
    if left_out:
        log.warning("%d categories of %s are not known to the detector", left_out, dataset.name)
    device = torch_device(args.device)
    found = inference.predict(
        Path(args.weights),
        dataset.validation.images,
        truth["images"],
        batch_size=args.batch_size,
        device=device,
        max_per_image=limit,
        workers=args.workers,
    )
    detections = [d | {"category_id": ids[d["category_id"]]} for d in found if d["category_id"] in ids]
    about = {
        "images": images_identity(truth["images"]),
        "max_per_image": limit,
        "detector": file_hash(args.weights),
        "categories": sorted(ids.values()),
    }
    write_predictions(args.output, Predictions(detections, about))
    log.info("%d detections in %d images of %s", len(detections), len(truth["images"]), dataset.name)
    return {
        "images": len(truth["images"]),
        "detections": len(detections),
        "device": device,
        "operators": mmcv_ext.description(device),
    }


if __name__ == "__main__":
    run(main)
