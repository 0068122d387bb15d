"""Decide what an engine draws: one manifest row per image, with its seed. Needs no GPU.

Writes <output> (JSON lines) and <output>.record.json.
"""

from gen4det.core.provenance import RunRecord
from gen4det.data.datasets import load_dataset
from gen4det.data.manifests import write_manifest
from gen4det.stages._cli import run, stage_parser
from gen4det.stages._engine import add_reads, step_inputs, step_job


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    add_reads(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="manifest.jsonl")
    args = parser.parse_args()
    job = step_job(args, "draw", plan=True)
    dataset = load_dataset(args.dataset)
    inputs = step_inputs(args, job, dataset)
    with RunRecord(
        args.output,
        settings=job.resolved(),
        code=("gen4det.stages.plan", job.module),
        seeds={"run_seed": job.run_seed},
        inputs=(args.dataset, dataset.train.annotations_path),
    ) as record:
        rows = job.worker(inputs).plan()
        write_manifest(args.output, rows)
        record.add(images=len(rows), batches=len({row["batch"] for row in rows}))


if __name__ == "__main__":
    run(main)
