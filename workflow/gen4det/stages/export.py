"""Write a synthetic set, alone or with the real images, in a layout that other tools read.

The folder of --output holds the data set, README.md (its data card) and export.json. It is made in a hidden
folder beside it, which an interrupted call goes on with, and refused where other files lie.
"""

import logging
import os
import shutil
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write, code_hash, content_hash, file_hash, write_json
from gen4det.data.datasets import Dataset, Split, load_dataset
from gen4det.data.images import image_name
from gen4det.data.layouts.card import ExportSettings, card, effect
from gen4det.data.layouts.folder import REAL, Part, check_target, export, finish_export, work_folder
from gen4det.data.shards import open_synthetic
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.export")
ABOUT = "export.json"


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", type=Path, required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--synthetic", type=Path, required=True, metavar="FILE", help="set.json")
    parser.add_argument("--output", type=Path, required=True, metavar=f"FOLDER/{ABOUT}")
    parser.add_argument(
        "--tables", nargs="*", default=[], metavar="CSV:ARM", help="tables that say what it did to a detector"
    )
    args = parser.parse_args()
    settings = stage_settings(args, ExportSettings)
    target = args.output.parent
    if args.output.name != ABOUT:
        raise InputError(f"--output {args.output}: expected a file {ABOUT} in the folder to be made")
    check_target(target)
    code, inputs = ("gen4det.stages.export",), (args.dataset, args.synthetic)
    with RunRecord(target, settings=settings.model_dump(), code=code, inputs=inputs) as record:
        dataset = load_dataset(args.dataset)
        splits = parts_of(dataset, args.synthetic, settings)
        about = [settings.model_dump(), code_hash(*code), dataset.train.hash, *map(file_hash, inputs)]
        fingerprint = content_hash(about)
        check_space(splits, target)
        done = export(splits, dataset.categories, settings.layout, target, fingerprint)
        effects = [line for table in args.tables for line in effect(*_table(table))]
        work = work_folder(target)
        with atomic_write(work / "README.md") as temporary:
            text = card(settings, done, dataset.categories, effects)
            temporary.write_text(text, encoding="utf-8")
        facts = {
            "images": {f"{split}/{origin}": count for (split, origin), count in done.images.items()},
            "objects": sum(done.objects.values()),
            "losses": dict(done.losses),
        }
        write_json(
            work / ABOUT, facts | {"categories": dataset.categories, "layout": settings.layout}, indent=1
        )
        finish_export(target, fingerprint)
        record.add(**facts)
    for what, count in sorted(done.losses.items()):
        log.warning("%s: %s: %d", target, what, count)
    log.info("%s: %d images, %d objects", target, sum(done.images.values()), facts["objects"])


def parts_of(dataset: Dataset, synthetic: Path, settings: ExportSettings) -> dict[str, list[Part]]:
    """The splits of an export.

    Raises:
        InputError: nothing was kept of what was drawn, or the real images are to be in it and there are none.
    """
    drawn = Part(settings.card.engine, *open_synthetic(synthetic))
    if not settings.merged:
        return {"train": [drawn]}
    return {"train": [_real(dataset.train), drawn], "val": [_real(dataset.validation)]}


def _real(split: Split) -> Part:
    return Part(REAL, split.labels(), split.images)


def check_space(splits: dict[str, list[Part]], target: Path) -> None:
    """Refuse to begin what does not fit on the disk.

    Raises:
        InputError: too little space.
    """
    files = {
        part.images.file_of(image_name(record))
        for parts in splits.values()
        for part in parts
        for record in part.labels.images()
    }
    needed = sum(os.stat(file).st_size for file in files if file.is_file())
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise InputError(f"{target}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free")


def _table(text: str) -> tuple[Path, str]:
    path, _, arm = text.rpartition(":")
    return Path(path), arm


if __name__ == "__main__":
    run(main)
