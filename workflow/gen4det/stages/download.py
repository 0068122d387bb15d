"""Download a public data set of the registry and prepare it.

Downloads resume where they were cut off. Writes dataset.json, train.json and val.json; the images stay in the
folder of downloads, which all data sets share.
"""

from pathlib import Path

from gen4det.core.provenance import RunRecord
from gen4det.data.download_settings import DownloadDataset
from gen4det.data.public import prepare_public
from gen4det.stages._cli import run, stage_parser, stage_settings


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="data/NAME/dataset.json")
    parser.add_argument("--name", help="name of the data set (default: the name of the output's folder)")
    args = parser.parse_args()
    settings = stage_settings(args, DownloadDataset)
    name = args.name or args.output.resolve().parent.name
    code = ("gen4det.stages.download",)
    with RunRecord(args.output, settings=settings.model_dump(), code=code, inputs=(settings.registry,)):
        prepare_public(name, settings, args.output)


if __name__ == "__main__":
    run(main)
