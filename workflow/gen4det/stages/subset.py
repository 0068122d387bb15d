"""Take a share of the training images of a data set for a data set of its own; the validation is the same."""

import logging
from pathlib import Path

from gen4det.core.provenance import RunRecord
from gen4det.data.source_settings import SubsetDataset
from gen4det.data.subsets import write_subset
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.subset")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--whole", type=Path, required=True, metavar="FILE", help="dataset.json to take from")
    parser.add_argument("--output", type=Path, required=True, metavar="data/NAME/dataset.json")
    args = parser.parse_args()
    settings = stage_settings(args, SubsetDataset)
    name = args.output.resolve().parent.name
    with RunRecord(
        args.output,
        settings=settings.model_dump(),
        code=("gen4det.stages.subset",),
        seeds={"subset": settings.seed},
        inputs=(args.whole,),
    ) as record:
        taken, whole = write_subset(name, settings, args.whole, args.output)
        record.add(images=taken, images_of_the_whole=whole)
    log.info("%s: %d of %d training images", args.output, taken, whole)


if __name__ == "__main__":
    run(main)
