"""Register a user's own photographs as a data set.

Reads a folder in the layout of COCO, LVIS, PASCAL VOC or YOLO, or annotation files of COCO's. Checks the
annotations and every image, and writes dataset.json, train.json and val.json. The images stay where they are.
"""

from pathlib import Path

from gen4det.core.provenance import RunRecord
from gen4det.data.photographs import register_photographs
from gen4det.data.source_settings import PhotographsDataset
from gen4det.stages._cli import run, stage_parser, stage_settings


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="data/NAME/dataset.json")
    parser.add_argument("--name", help="name of the data set (default: the name of the output's folder)")
    parser.add_argument(
        "--mask-detectors",
        nargs="+",
        default=(),
        metavar="CONFIG",
        help="configs of detectors that will learn masks: objects without one are refused",
    )
    args = parser.parse_args()
    settings = stage_settings(args, PhotographsDataset)
    name = args.name or args.output.resolve().parent.name
    inputs = tuple(split.annotations for split in (settings.train, settings.val) if split is not None)
    code = ("gen4det.stages.photographs",)
    with RunRecord(args.output, settings=settings.model_dump(), code=code, inputs=inputs) as record:
        left_out = register_photographs(
            name,
            settings,
            args.output,
            mask_detectors=args.mask_detectors,
            tokens=args.settings.get("pictures", {}),
        )
        record.add(left_out=left_out)


if __name__ == "__main__":
    run(main)
