"""Render a data set of the miniature world: images, masks, boxes, in the layout of LVIS v1 or COCO."""

from pathlib import Path

from gen4det.core.provenance import RunRecord
from gen4det.miniature.datasets import render_dataset
from gen4det.miniature.settings import MiniatureDataset
from gen4det.stages._cli import run, stage_parser, stage_settings


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="data/NAME/dataset.json")
    parser.add_argument("--name", help="name of the data set (default: the name of the output's folder)")
    args = parser.parse_args()
    settings = stage_settings(args, MiniatureDataset)
    name = args.name or args.output.resolve().parent.name
    seeds = {"world": settings.seed}
    with RunRecord(args.output, settings=settings.model_dump(), code=("gen4det.stages.render",), seeds=seeds):
        render_dataset(settings, name, args.output)


if __name__ == "__main__":
    run(main)
