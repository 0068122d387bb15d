"""Write names of categories as a data set without images, for engines that need none."""

import logging
from pathlib import Path

from gen4det.core.provenance import RunRecord
from gen4det.data.names import write_names
from gen4det.data.source_settings import NamesDataset
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.names")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="data/NAME/dataset.json")
    args = parser.parse_args()
    settings = stage_settings(args, NamesDataset)
    name = args.output.resolve().parent.name
    with RunRecord(args.output, settings=settings.model_dump(), code=("gen4det.stages.names",)):
        write_names(name, settings, args.output)
    log.info("%s: %d names, no images", args.output, len(settings.names))


if __name__ == "__main__":
    run(main)
