"""Download a pretrained model of the registry, or check the one that is there.

A further call fetches what is missing. Writes download.json beside the model's files: where they are from, at
which commit, with which checksums.
"""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, write_json
from gen4det.data.download_settings import DownloadModel
from gen4det.data.models import obtain_model
from gen4det.data.registry import MODELS
from gen4det.stages._cli import run, stage_parser, stage_settings


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="models/NAME/download.json")
    args = parser.parse_args()
    settings = stage_settings(args, DownloadModel)
    place = Path(settings.folder, MODELS, settings.name)
    if args.output.resolve().parent != place.resolve():
        raise InputError(f"--output {args.output}: the model lies in {place}, its description beside it")
    code = ("gen4det.stages.download_model",)
    with RunRecord(args.output, settings=settings.model_dump(), code=code, inputs=(settings.registry,)):
        facts = obtain_model(settings.name, settings.registry, settings.folder)
        write_json(args.output, facts, indent=1)


if __name__ == "__main__":
    run(main)
