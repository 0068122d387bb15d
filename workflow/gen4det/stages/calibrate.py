"""Score how good the real training images look: their mean is the threshold of the aesthetic filter.

Writes <output>: mean and spread of the scores, with hashes of the training split and of the models, so that
the threshold of another split is refused; and <output>.record.json. Validation images are not looked at.
"""

import logging

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, write_json
from gen4det.data.datasets import load_dataset
from gen4det.stages._aesthetic import RatingSettings, load_rater
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device

log = logging.getLogger("gen4det.calibrate")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--output", required=True, metavar="FILE", help="aesthetic.json")
    add_device_arguments(parser, workers="threads that read images", batch_size=64)
    args = parser.parse_args()
    settings = stage_settings(args, RatingSettings)
    dataset = load_dataset(args.dataset)

    from gen4det.filters.aesthetic import calibration

    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.calibrate",),
        inputs=(args.dataset, dataset.train.annotations_path),
    ) as record:
        device = torch_device(args.device)
        images = dataset.train.load()["images"]
        if not images:
            raise InputError(f"{dataset.train.annotations_path}: no images to calibrate on")
        rater = load_rater(settings, device)
        scores = rater.rate(dataset.train.images, images, batch_size=args.batch_size, workers=args.workers)
        measured = calibration(scores)
        identity = {"dataset": dataset.name, "split": dataset.train.hash, "models": rater.models}
        write_json(args.output, identity | measured, indent=1)
        record.add(device=device, images=len(scores))
    log.info("%.4f, standard deviation %.4f, of %d images", measured["mean"], measured["std"], len(scores))


if __name__ == "__main__":
    run(main)
