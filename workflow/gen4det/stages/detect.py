"""Run a detector that was trained on real images alone on the images of a shard, or on those real images.

Writes <output>: boxes, categories and scores, with hashes of the images, of the detector and of the split it
was trained on; and <output>.record.json. Filters and steps of engines apply thresholds.
"""

import json
import logging
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, file_hash, write_json
from gen4det.core.settings import Settings
from gen4det.data.datasets import Dataset, load_dataset
from gen4det.data.images import ImageStore
from gen4det.data.shards import image_folder, load_shard, shard_identity
from gen4det.filters.agreement import compact
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device

log = logging.getLogger("gen4det.detect")


class DetectStageSettings(Settings):
    """Settings of this stage."""

    max_per_image: Annotated[int, Field(ge=1)] = 300
    """Detections per image at most, the best ones."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json of the real images")
    parser.add_argument("--weights", required=True, metavar="FILE", help="what `train` wrote, and its record")
    parser.add_argument(
        "--images",
        required=True,
        metavar="FILE",
        help="<k>.json of a shard, its images beside it; or dataset.json again: the training images",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="detections, as JSON")
    add_device_arguments(parser, workers="processes that load images", batch_size=16)
    args = parser.parse_args()
    settings = stage_settings(args, DetectStageSettings)
    dataset = load_dataset(args.dataset)
    require_trained_on(args.weights, dataset)
    of, images, store = looked_at(args.images, dataset)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.detect",),
        inputs=(args.dataset, args.images, args.weights),
    ) as record:
        from gen4det.detection import mmcv_ext
        from gen4det.detection.inference import predict

        device = torch_device(args.device)
        detections = predict(
            Path(args.weights),
            store,
            images,
            batch_size=args.batch_size,
            device=device,
            max_per_image=settings.max_per_image,
            masks=False,
            workers=args.workers,
        )
        found = {
            "of": of,
            "split": dataset.train.hash,
            "detector": file_hash(args.weights),
            "max_per_image": settings.max_per_image,
            "detections": compact(detections),
        }
        write_json(args.output, found)
        record.add(
            device=device,
            operators=mmcv_ext.description(device),
            images=len(images),
            detections=len(detections),
        )
    log.info("%d detections in %d images", len(detections), len(images))


def looked_at(path: str, dataset: Dataset) -> tuple[dict, list[dict], ImageStore]:
    """What names the images, their records, and where they are.

    Args:
        path: of a shard's labels, or the descriptor of the data set, which means its training images.
    """
    if Path(path).resolve() == dataset.path.resolve():
        return {"split": dataset.train.hash}, dataset.train.load()["images"], dataset.train.images
    shard = load_shard(path)
    return shard_identity(shard), shard["images"], ImageStore(image_folder(path, shard))


def require_trained_on(weights: str | Path, dataset: Dataset) -> None:
    """Refuse a detector that knows more, or something else, than the real training images.

    Raises:
        InputError: the record beside the weights is missing, or names another split or synthetic images.
    """
    path = Path(f"{weights}.record.json")
    try:
        trained_on = json.loads(path.read_bytes())["trained_on"]
        training_hash = trained_on["split"]  # the name in records
        synthetic = trained_on["synthetic"]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; it says what the detector was trained on") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: does not say what the detector was trained on; train it again") from error
    if training_hash != dataset.train.hash:
        raise InputError(f"{weights}: trained on another split than the training split of {dataset.path}")
    if synthetic:
        raise InputError(f"{weights}: trained on synthetic images, too; expected real ones alone")


if __name__ == "__main__":
    run(main)
