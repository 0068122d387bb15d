"""Merge the shards of a run into one synthetic set, without the labels that a filter refuses.

Writes <output> (annotations of the kept images), the rejected labels with reasons, filter.csv beside <output>
(kept fractions per frequency group and category) and <output>.record.json. What the filters look at beside
the labels was measured before, by `rate`, `calibrate` and `detect`: another threshold measures nothing again.
"""

import argparse
import logging
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord, atomic_write
from gen4det.core.settings import Settings
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import load_dataset
from gen4det.data.shards import image_folder, load_run, relative_images
from gen4det.data.validation import validate_annotations
from gen4det.filters.measurements import Measurements, read_disagreements, read_scores, read_threshold
from gen4det.filters.selection import (
    kept_fractions,
    rejected_labels,
    select,
    synthetic_set,
    to_csv,
)
from gen4det.filters.settings import FilterSettings
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
        help="all <k>.json of shards or labels",
    )
    parser.add_argument(
        "--aesthetic", nargs="*", default=[], metavar="FILE", help="what `rate` wrote, one per shard"
    )
    parser.add_argument("--calibration", nargs="?", metavar="FILE", help="what `calibrate` wrote")
    parser.add_argument(
        "--detections", nargs="*", default=[], metavar="FILE", help="what `detect` wrote, one per shard"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="annotations.json")
    parser.add_argument("--rejected", required=True, metavar="FILE", help="rejected.json")
    args = parser.parse_args()
    settings = stage_settings(args, FilterStageSettings)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.filter",),
        inputs=(args.dataset, *args.shards, *_measured_files(args)),
    ) as record:
        record.add(**choose(args, settings.filter))


def choose(args: argparse.Namespace, settings: FilterSettings) -> dict:
    """Write the outputs, annotations last.

    Returns:
        Figures for the run record.

    Raises:
        InputError: unusable shards.

    Where nothing was kept, the set is empty and says why (see `load_synthetic`).
    """
    dataset = load_dataset(args.dataset)
    training = dataset.train.load()
    shards = load_run(args.shards)
    if shards[0]["info"].get("split") not in (None, dataset.train.hash):
        raise InputError(f"{args.shards[0]}: not drawn from {dataset.train.annotations_path}; draw it again")
    measured = measurements(args, settings, shards, dataset.train.hash)
    selection = select(shards, training, settings, measured)
    shard_folder = image_folder(args.shards[0], shards[0])

    rows = kept_fractions(selection, training)
    with atomic_write(Path(args.output).with_name("filter.csv")) as temporary:
        temporary.write_text(to_csv(rows))
    rejected = rejected_labels(selection, relative_images(args.rejected, shard_folder))
    write_annotations(args.rejected, rejected)

    reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(rejected["reasons"].items()))
    data = synthetic_set(
        selection,
        training,
        dataset.format,
        settings.segmentation,
        relative_images(args.output, shard_folder),
    )
    data["info"]["split"] = shards[0]["info"].get("split")
    if selection.kept:
        validate_annotations(data, source=args.output, allow_empty_categories=True)
    else:
        name = Path(args.output).resolve().parent.name
        lost = len(selection.rejected)
        why = f"all {lost} labels of {name} were rejected: {reasons}" if lost else f"{name} labelled nothing"
        data["info"]["refused"] = why
        log.warning("%s: %s", args.output, data["info"]["refused"])
    write_annotations(args.output, data)

    if measured.threshold is not None:
        log.info("least aesthetic score %.4f", measured.threshold)
    drawn = rows[0]
    log.info("kept %d of %d drawn labels, %d images", drawn["kept"], drawn["generated"], len(data["images"]))
    if reasons:
        log.info("rejected: %s", reasons)
    return {
        "images_generated": len(selection.images),
        "images_kept": len(data["images"]),
        "labels_generated": drawn["generated"],
        "labels_kept": drawn["kept"],
        "labels_rejected": {reason: drawn[reason] for reason in rejected["reasons"] if reason in drawn},
        "aesthetic_threshold": measured.threshold,
        "kept_fraction": {row["name"]: row["kept_fraction"] for row in rows if row["level"] != "category"},
    }


def measurements(
    args: argparse.Namespace, settings: FilterSettings, shards: list[dict], training_hash: str
) -> Measurements:
    """Measurements that the enabled filters need beside the labels.

    Args:
        training_hash: hash of the training split.

    Raises:
        InputError: measurements are missing, or of other images, another split or other models.
    """
    scores, threshold, disagreements = {}, None, {}
    if settings.aesthetic.enabled:
        scores, models = read_scores(args.aesthetic, shards)
        threshold = read_threshold(
            args.calibration, settings.aesthetic, training_hash=training_hash, models=models
        )
    if settings.agreement.enabled:
        disagreements = read_disagreements(
            args.detections, shards, settings.agreement, training_hash=training_hash
        )
    return Measurements(scores, threshold, disagreements)


def _measured_files(args: argparse.Namespace) -> list[str]:
    return [*args.aesthetic, *([args.calibration] if args.calibration else []), *args.detections]


if __name__ == "__main__":
    run(main)
