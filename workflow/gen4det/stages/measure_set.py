"""Measure a synthetic set: what it holds, what the filters left of it, what it cost. No torch, no GPU.

Writes <output>, {"set": {value: number or null}, "seconds": {kind of job: wall clock}, "devices": [...]}, and
<output>.record.json.
"""

import logging

from gen4det.core.json_files import read_json
from gen4det.core.provenance import RunRecord, write_json
from gen4det.core.settings import Settings
from gen4det.data.label_sets import as_dictionaries
from gen4det.evaluation.measures.synthetic_set import devices, spent, synthetic_set_measures
from gen4det.stages._cli import run, stage_parser, stage_settings

log = logging.getLogger("gen4det.measure_set")


class MeasureSetStageSettings(Settings):
    """This stage has none."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--synthetic", required=True, metavar="FILE", help="set.json; its record beside it")
    parser.add_argument(
        "--records", required=True, nargs="+", metavar="FILE", help="<k>.record.json of shards"
    )
    parser.add_argument(
        "--others",
        nargs="*",
        default=[],
        metavar="KIND=FILE",
        help="records of what else was made for this set, e.g. fit=FILE, detector=FILE, label=FILE",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="measures.json")
    args = parser.parse_args()
    settings = stage_settings(args, MeasureSetStageSettings)
    filtered = f"{args.synthetic}.record.json"
    others: dict[str, list[str]] = {}
    for kind, _, path in (it.partition("=") for it in args.others):
        others.setdefault(kind, []).append(path)
    made = [path for paths in others.values() for path in paths]
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.measure_set",),
        inputs=(args.synthetic, filtered, *args.records, *made),
    ):
        drawn = [read_json(path, "the record of a shard") for path in args.records]
        beside = {kind: [read_json(path, "a record") for path in paths] for kind, paths in others.items()}
        measured = synthetic_set_measures(
            *as_dictionaries(args.synthetic),
            read_json(filtered, "the record of a filter"),
            drawn,
            beside,
        )
        every = {"draw": drawn} | beside
        result = {"set": measured, "seconds": spent(every), "devices": devices(sum(every.values(), []))}
        write_json(args.output, result, indent=1)
    log.info(", ".join(f"{name} {value}" for name, value in measured.items() if value is not None))


if __name__ == "__main__":
    run(main)
