"""Label photographs that nobody has labelled, with a trained detector, e.g. the adapter of an engine.

Writes <output>, a file in COCO's layout with a score for each box; a page of some images to look at (.pdf and
.png beside it); and <output>.record.json. The labels are a detector's opinions: look at the page first.

    python -m gen4det.stages.annotate --settings '{"min_score": 0.3}' --images photographs/new \\
        --weights results/.../adapter/real/seed0/weights.safetensors --output photographs/new.json
"""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, file_hash
from gen4det.core.settings import Settings
from gen4det.data.annotations import write_annotations
from gen4det.data.images import ImageStore
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device

log = logging.getLogger("gen4det.annotate")


class AnnotateSettings(Settings):
    """Settings of this stage."""

    min_score: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Boxes that are written are more certain than this."""
    max_per_image: Annotated[int, Field(ge=1)] = 300
    """Boxes of an image at most, the best ones."""
    shown: Annotated[int, Field(ge=1)] = 12
    """Images on the page."""
    seed: int = 0
    """Which ones."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--images", required=True, type=Path, metavar="FOLDER|ZIP", help="the photographs")
    parser.add_argument("--weights", required=True, type=Path, metavar="FILE", help="what `train` wrote")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="labels, as JSON")
    add_device_arguments(parser, workers="processes that load images", batch_size=8)
    args = parser.parse_args()
    settings = stage_settings(args, AnnotateSettings)
    store = ImageStore(args.images)
    records = image_records(store)
    device = torch_device(args.device)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.annotate",),
        seeds={"choice": settings.seed},
        inputs=(args.weights,),
    ) as record:
        from gen4det.detection.inference import predict
        from gen4det.detection.weights import detector_categories
        from gen4det.evaluation.labelled_page import labelled_page
        from gen4det.evaluation.plotting import save_figure

        categories = detector_categories(args.weights)
        found = predict(
            args.weights,
            store,
            records,
            batch_size=args.batch_size,
            device=device,
            max_per_image=settings.max_per_image,
            masks=False,
            workers=args.workers,
        )
        data = coco_labels(records, categories, found, settings.min_score)
        data["info"] = {
            "description": f"labels of a detector ({args.weights}), not of people",
            "detector": file_hash(args.weights),
            "min_score": settings.min_score,
        }
        write_annotations(args.output, data)
        page = labelled_page(store, data, count=settings.shown, seed=settings.seed)
        save_figure(page, args.output.with_suffix(".pdf"))
        labelled = len({label["image_id"] for label in data["annotations"]})
        record.add(device=device, images=len(records), labels=len(data["annotations"]), labelled=labelled)
    log.info("%d boxes in %d of %d images", len(data["annotations"]), labelled, len(records))


def image_records(store: ImageStore) -> list[dict]:
    """COCO records of all images of a folder or zip, in the order of their names; ids count from 1.

    Raises:
        InputError: no image, or one that cannot be read.
    """
    names = store.names()
    if not names:
        raise InputError(f"{store.root}: no images")
    records = []
    for number, name in enumerate(names, start=1):
        width, height = store.size(name)
        records.append({"id": number, "file_name": name, "width": width, "height": height})
    return records


def coco_labels(
    records: list[dict], categories: list[dict], detections: list[dict], min_score: float
) -> dict:
    """A COCO dictionary of what a detector has found.

    Args:
        records: of all images, those without boxes included.
        detections: as `inference.predict` gives them.
        min_score: boxes that are kept are more certain.
    """
    labels = []
    for detection in detections:
        x, y, width, height = detection["bbox"]
        if round(detection["score"], 6) > min_score and width > 0 and height > 0:
            labels.append({
                "id": len(labels) + 1,
                "image_id": detection["image_id"],
                "category_id": detection["category_id"],
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": round(detection["score"], 6),
            })  # fmt: skip
    return {"images": records, "annotations": labels, "categories": categories}


if __name__ == "__main__":
    run(main)
