"""Draw one shard of a manifest.

Writes <output>.zip (images), <output>.arrow (labels) and <output>.record.json. Finished batches are kept in
<output>.work until the shard is complete: run the same command again after an interruption. Exit status 143
after SIGTERM and 75 when --max-seconds is used up; in both cases all finished batches are saved.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.provenance import RunRecord, code_hash
from gen4det.data.datasets import load_dataset
from gen4det.data.manifests import read_batches
from gen4det.engines.base import Drawer
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.stages._cli import run, stage_parser
from gen4det.stages._device import add_device_arguments, torch_device
from gen4det.stages._engine import add_reads, hash_of, step_inputs, step_job
from gen4det.training.stop import Deadline

log = logging.getLogger("gen4det.generate")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--manifest", required=True, metavar="FILE", help="manifest.jsonl of `plan`")
    parser.add_argument("--shard", type=int, default=0, metavar="K", help="number of the shard, from 0")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="how many shards there are")
    parser.add_argument("--output", required=True, metavar="PREFIX", help="shard without .zip and .arrow")
    add_reads(parser)
    add_device_arguments(parser, workers="processes for CPU work beside")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="save and stop before this time is up")
    parser.add_argument("--keep-batches", action="store_true", help="do not remove <output>.work at the end")
    args = parser.parse_args()
    if not 0 <= args.shard < args.shards:
        raise InputError(f"--shard {args.shard}: expected a number from 0 to {args.shards - 1}")

    job = step_job(args, "draw")
    dataset = load_dataset(args.dataset)
    inputs = step_inputs(args, job, dataset)
    batches, planned = read_batches(args.manifest, args.shard, args.shards)
    device = torch_device(args.device)
    code = ("gen4det.stages.generate", job.module)
    fingerprint = {
        **args.settings,  # the workflow adds hashes of model files
        "settings": job.resolved(),
        "code": code_hash(*code),
        "manifest": planned,
        "dataset": dataset.train.hash,
        "inputs": hash_of(inputs),
        "device": device,
    }
    record = RunRecord(
        args.output,
        settings=job.resolved(),
        code=code,
        seeds={"run_seed": job.run_seed},
        inputs=(args.dataset,),
    )
    record.add(inputs=record.facts["inputs"] | {args.manifest: planned})  # known: not read for it again
    work = ShardInProgress(args.output, fingerprint, args.shard, args.shards, job.engine.image_format)
    with Deadline(args.max_seconds) as deadline, work:
        with record:
            finished = work.finished()
            missing = {number: rows for number, rows in batches.items() if number not in finished}
            if missing:
                drawer = job.worker(inputs, device=device, workers=args.workers)
                left = draw(drawer, batches, missing, work, deadline)
                if left:
                    log.warning("%d of %d batches to go; run the same command again", left, len(batches))
                    sys.exit(deadline.exit_status)
            record.add(shard=args.shard, shards=args.shards, device=device, **counts(work, list(batches)))
            work.assemble(list(batches), dataset.categories)
        if not args.keep_batches:
            work.discard()  # last: until the record is written, an interruption costs nothing


def draw(
    drawer: Drawer,
    batches: dict[int, list[dict]],
    missing: dict[int, list[dict]],
    work: ShardInProgress,
    deadline: Deadline,
) -> int:
    """Draw the missing batches, each saved as soon as it is finished, until the deadline is reached.

    Args:
        batches, missing: batch number -> rows; all of the shard, and those still to be drawn.

    Returns:
        Number of batches that are still missing because of the deadline.
    """
    total = sum(map(len, batches.values()))
    done = total - sum(map(len, missing.values()))
    kept = dropped = drawn = 0

    def pending() -> Iterator[list[dict]]:
        for rows in missing.values():
            if deadline.reached():  # what the engine has read ahead is still finished and saved
                return
            yield rows

    with progress(None, "drawing", "image", total=total) as bar:
        bar.initial = bar.n = done
        bar.refresh()
        started, calls = time.monotonic(), drawer.unet_calls
        for generated, (number, rows) in zip(drawer.synthesize(pending()), missing.items(), strict=False):
            if [item.row["index"] for item in generated] != [row["index"] for row in rows]:
                raise RuntimeError(f"{type(drawer).__module__}: batch {number} came back with other rows")
            seconds, new_calls = time.monotonic() - started, drawer.unet_calls - calls
            labels = work.save(number, generated, seconds=seconds, unet_calls=new_calls)
            started, calls = started + seconds, calls + new_calls
            deadline.step()
            drawn += 1
            labelled = {annotation["image_id"] for annotation in labels["annotations"]}
            kept += len(labelled)
            dropped += len(rows) - len(labelled)
            bar.set_postfix(kept=kept, dropped=dropped, refresh=False)
            bar.update(len(rows))
    if drawn < len(missing) and not deadline.stopped:
        raise RuntimeError(f"{type(drawer).__module__}: {len(missing)} batches asked for, {drawn} came back")
    return len(missing) - drawn


def counts(work: ShardInProgress, batches: list[int]) -> dict:
    """Figures of the run record: images and labels, kept and rejected by reason, time, U-Net calls.

    Time and calls add up all attempts that finished a batch; `wall_seconds` of the record is of the last one.
    """
    images = kept = labels = 0
    reasons: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    for batch in work.labels_of(batches):
        images += len(batch["images"])
        kept += len({annotation["image_id"] for annotation in batch["annotations"]})
        labels += len(batch["annotations"])
        reasons.update(label["reason"] for label in batch["rejected"])
        facts.update(batch["facts"])
    return {
        "images": images,
        "images_with_labels": kept,
        "labels": labels,
        "labels_rejected": dict(sorted(reasons.items())),
        "drawing_seconds": round(facts["seconds"], 3),
        "unet_calls": facts["unet_calls"] or None,
    }


if __name__ == "__main__":
    run(main)
