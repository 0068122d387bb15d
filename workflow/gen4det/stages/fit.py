"""Do a fit step of an engine: learn a model from the data set or from what earlier steps made.

Writes the folder <output>, in the layout of the model's library, losses.csv beside it and
<output>.record.json.
Progress is kept in the folder `work` beside <output>: run the same command again after an interruption. Exit
status 143 after SIGTERM and 75 when --max-seconds is used up; both save first.
"""

import contextlib
import logging
import shutil
import sys
from pathlib import Path

from gen4det.core.provenance import RunRecord, atomic_write, code_hash
from gen4det.data.datasets import load_dataset
from gen4det.stages._cli import run, stage_parser
from gen4det.stages._device import add_device_arguments, torch_device
from gen4det.stages._engine import add_reads, hash_of, step_inputs, step_job
from gen4det.training import processes
from gen4det.training.stop import Deadline

log = logging.getLogger("gen4det.fit")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    add_reads(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="the fitted model")
    add_device_arguments(parser, workers="processes that load images")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="save and stop before this time is up")
    args = parser.parse_args()
    job = step_job(args, "fit")
    dataset = load_dataset(args.dataset)
    inputs = step_inputs(args, job, dataset)
    device = torch_device(args.device)
    code = ("gen4det.stages.fit", job.module)
    work = args.output.parent / "work"
    fingerprint, record = {}, contextlib.nullcontext()
    if processes.is_first():  # hashing is for the disk and the record: once is enough
        fingerprint = {
            **args.settings,  # the workflow adds hashes of model files
            "settings": job.resolved(),
            "code": code_hash(*code),
            "dataset": dataset.train.hash,
            "inputs": hash_of(inputs),
            "device": device,
        }
        record = RunRecord(
            args.output,
            settings=job.resolved(),
            code=code,
            seeds={"run_seed": job.run_seed},
            inputs=(args.dataset, dataset.train.annotations_path),
        )
    with Deadline(args.max_seconds) as deadline, record:
        worker = job.worker(inputs, device=device, workers=args.workers)
        facts = worker.fit(work, fingerprint, args.output, deadline)
        if not processes.is_first():
            return
        if deadline.stopped and not args.output.exists():
            log.warning("stopped, progress is saved; run the same command again")
            sys.exit(deadline.exit_status)
        if not args.output.is_dir():
            raise RuntimeError(f"{job.module}: fit wrote no folder {args.output}")
        record.add(device=device, step=job.step.name, read=fingerprint["inputs"], **facts)
        keep_losses(work, args.output.with_name("losses.csv"))
    shutil.rmtree(work)  # last: until the record is written, an interruption costs nothing


def keep_losses(work: Path, output: Path) -> None:
    """Copy the table of losses that the training loop wrote; an empty one for a fit without any."""
    table = work / "losses.csv"
    with atomic_write(output) as temporary:
        temporary.write_bytes(table.read_bytes() if table.exists() else b"iteration,loss\n")


if __name__ == "__main__":
    run(main)
