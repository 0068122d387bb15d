"""Choose from the shards of a run what is offered for training: a synthetic set, without what a filter
refuses.

Writes <output> (which labels, of which shards), verdicts.arrow (a byte for every label) and filter.csv (kept
fractions per frequency group and category) beside it, and <output>.record.json. What the filters look at
beside the labels was measured before, by `rate`, `calibrate` and `detect`: another threshold measures nothing
again.
"""

import argparse
import logging
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write, write_json
from gen4det.core.settings import Settings
from gen4det.data.datasets import load_dataset
from gen4det.data.label_sets import VERDICTS, describe_tables
from gen4det.data.shards import image_folder, open_run, relative_images, shard_identity
from gen4det.filters.measurements import Beside
from gen4det.filters.selection import counted_categories, kept_fractions, select, to_csv, write_verdicts
from gen4det.filters.settings import FilterSettings
from gen4det.filters.verdicts import REASONS
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.filter")


class FilterStageSettings(Settings):
    """Settings of this stage."""

    filter: FilterSettings = FilterSettings()


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument(
        "--shards",
        required=True,
        nargs="+",
        metavar="FILE",
        help="all <k>.arrow of shards or labels",
    )
    parser.add_argument(
        "--aesthetic", nargs="*", default=[], metavar="FILE", help="what `rate` wrote, one per shard"
    )
    parser.add_argument("--calibration", nargs="?", metavar="FILE", help="what `calibrate` wrote")
    parser.add_argument(
        "--detections", nargs="*", default=[], metavar="FILE", help="what `detect` wrote, one per shard"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that share many shards")
    parser.add_argument("--output", required=True, metavar="FILE", help="set.json")
    args = parser.parse_args()
    settings = stage_settings(args, FilterStageSettings)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.filter",),
        inputs=(args.dataset, *args.shards, *_measured_files(args)),
    ) as record:
        record.add(**choose(args, settings.filter, record.facts["inputs"]))


def choose(args: argparse.Namespace, settings: FilterSettings, hashes: dict[str, str]) -> dict:
    """Write the outputs, the set itself last.

    Args:
        hashes: SHA-256 of the shards' tables by their paths.

    Returns:
        Figures for the run record.

    Raises:
        InputError: unusable shards.

    Where nothing was kept, the set is empty and says why (see `data.label_sets.open_set`).
    """
    dataset, output = load_dataset(args.dataset), Path(args.output)
    tables = open_run(args.shards)
    split = tables[0].about["info"].get("split")
    if split not in (None, dataset.train.hash):
        raise InputError(f"{tables[0].path}: not drawn from {dataset.train.annotations_path}; draw it again")
    beside = Beside(
        settings,
        [shard_identity(table.about) for table in tables],
        dataset.train.hash,
        scores=args.aesthetic,
        calibration=args.calibration,
        detections=args.detections,
    )
    selection = select(tables, dataset.categories, settings, beside.of, processes=args.workers)
    tally, groups = selection.tally, dataset.frequency_groups

    rows = kept_fractions(tally, dataset.categories, groups)
    with atomic_write(output.with_name("filter.csv")) as temporary:
        temporary.write_text(to_csv(rows))
    write_verdicts(output.with_name(VERDICTS), tables, selection, settings.segmentation)

    reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(tally.reasons.items()))
    shard_folder = image_folder(tables[0].path, tables[0].about)
    info = {
        "description": "synthetic training images",
        "images": relative_images(output, shard_folder),
        "split": split,
    }
    if not tally.labelled:
        name, lost = output.resolve().parent.name, tally.reasons.total()
        info["refused"] = (
            f"all {lost} labels of {name} were rejected: {reasons}" if lost else f"{name} labelled nothing"
        )
        log.warning("%s: %s", output, info["refused"])
    write_json(
        output,
        {
            "info": info,
            "form": dataset.format,
            "categories": counted_categories(tally, dataset.categories, groups, dataset.format),
            "all_categories": [{key: it[key] for key in ("id", "name")} for it in dataset.categories],
            "reasons": REASONS,
            "rejected": dict(tally.reasons),
            "images": {"generated": tally.images, "offered": tally.labelled},
            "tables": describe_tables(output, tables, [hashes[str(table.path)] for table in tables]),
        },
        indent=1,
    )

    if beside.threshold is not None:
        log.info("least aesthetic score %.4f", beside.threshold)
    drawn = rows[0]
    log.info("kept %d of %d drawn labels, %d images", drawn["kept"], drawn["generated"], tally.labelled)
    if reasons:
        log.info("rejected: %s", reasons)
    return {
        "images_generated": tally.images,
        "images_kept": tally.labelled,
        "labels_generated": drawn["generated"],
        "labels_kept": drawn["kept"],
        "labels_rejected": {reason: drawn[reason] for reason in tally.reasons if reason in drawn},
        "aesthetic_threshold": beside.threshold,
        "kept_fraction": {row["name"]: row["kept_fraction"] for row in rows if row["level"] != "category"},
    }


def _measured_files(args: argparse.Namespace) -> list[str]:
    return [*args.aesthetic, *([args.calibration] if args.calibration else []), *args.detections]


if __name__ == "__main__":
    run(main)
