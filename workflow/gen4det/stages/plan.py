"""Decide what an engine draws: one manifest row per image, with its seed. Needs no GPU.

Writes <output> (JSON lines) and <output>.record.json.
"""

from gen4det.core.provenance import RunRecord
from gen4det.data.datasets import load_dataset
from gen4det.data.manifests import write_manifest
from gen4det.engines.base import load_engine
from gen4det.stages._cli import run, stage_parser
from gen4det.stages._engine import drawing_settings


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--output", required=True, metavar="FILE", help="manifest.jsonl")
    args = parser.parse_args()
    drawing = drawing_settings(args)
    dataset = load_dataset(args.dataset)
    with RunRecord(
        args.output,
        settings=drawing.resolved(),
        code=("gen4det.stages.plan", drawing.module),
        seeds={"run_seed": drawing.run_seed},
        inputs=(args.dataset, dataset.train.annotations_path),
    ) as record:
        engine = load_engine(drawing.engine, drawing.foundation, drawing.run_seed)
        rows = engine.plan(dataset)
        write_manifest(args.output, rows)
        record.add(images=len(rows), batches=len({row["batch"] for row in rows}))


if __name__ == "__main__":
    run(main)
