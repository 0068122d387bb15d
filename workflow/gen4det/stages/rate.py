"""Score how good the images of one shard look.

Writes <output>: a score per image from CLIP's embedding and an aesthetic predictor, with hashes of the images
and of both models; and <output>.record.json. The stage `filter` applies the threshold.
"""

import logging
from pathlib import Path

from gen4det.core.provenance import RunRecord, write_json
from gen4det.data.images import ImageStore
from gen4det.data.shards import load_shard, shard_identity
from gen4det.stages._aesthetic import RatingSettings, load_rater
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device

log = logging.getLogger("gen4det.rate")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--shard", required=True, metavar="FILE", help="<k>.json, its images beside it")
    parser.add_argument("--output", required=True, metavar="FILE", help="scores, as JSON")
    add_device_arguments(parser, workers="threads that read images", batch_size=64)
    args = parser.parse_args()
    settings = stage_settings(args, RatingSettings)
    shard = load_shard(args.shard)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.rate",),
        inputs=(args.shard,),
    ) as record:
        device = torch_device(args.device)
        rater = load_rater(settings, device)
        scores = rater.rate(
            ImageStore(Path(args.shard).parent),
            shard["images"],
            batch_size=args.batch_size,
            workers=args.workers,
        )
        by_image = {str(image["id"]): score for image, score in zip(shard["images"], scores, strict=True)}
        write_json(
            args.output, {"of": shard_identity(shard), "models": rater.models, "scores": by_image}, indent=1
        )
        mean = sum(scores) / len(scores) if scores else None
        record.add(device=device, images=len(scores), mean=mean)
    log.info("%d images", len(scores))


if __name__ == "__main__":
    run(main)
