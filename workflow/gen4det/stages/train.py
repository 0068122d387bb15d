"""Train a detector on the real images and on synthetic sets.

Writes <output> (safetensors with classes and config), <output>.record.json, losses.csv and train.log beside
it. If nothing was kept of a synthetic set, <output> says so in place of weights, for the table to show.
Progress is kept in the folder `work` beside the output: run the same command again after
an interruption. Exit status 143 after SIGTERM and 75 when --max-seconds is used up; both save first.
"""

import contextlib
import logging
import sys
from pathlib import Path

from gen4det.core.errors import InputError, RefusedInput
from gen4det.core.provenance import RunRecord, atomic_write, code_hash, file_hash
from gen4det.data.datasets import load_dataset
from gen4det.detection.config_files import config_files
from gen4det.detection.settings import TrainSettings
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device
from gen4det.training import processes
from gen4det.training.stop import Deadline

log = logging.getLogger("gen4det.train")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json of the real images")
    parser.add_argument(
        "--synthetic",
        nargs="*",
        default=[],
        type=Path,
        metavar="FILE",
        help="synthetic sets",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="weights.safetensors")
    add_device_arguments(parser, workers="processes that load images")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="save and stop before this time is up")
    args = parser.parse_args()

    settings = stage_settings(args, TrainSettings)
    dataset = load_dataset(args.dataset)
    device = torch_device(args.device)
    backbone = settings.detector.backbone_weights
    inputs = [args.dataset, settings.detector.config, *args.synthetic, *([backbone] if backbone else [])]
    for path in inputs:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file")
    code = (__spec__.name, *settings.detector.modules)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    fingerprint, record = {}, None
    if processes.is_first():  # hashing is for the disk and the logs: once is enough
        fingerprint = {
            **args.settings,  # the workflow adds hashes of config files
            "settings": settings.model_dump(mode="json"),
            "code": code_hash(*code),
            "dataset": dataset.train.hash,
            "config": [file_hash(path) for path in config_files(settings.detector.config)],
            "synthetic sets": [file_hash(path) for path in args.synthetic],
            "backbone weights": backbone and file_hash(backbone),
            "device": device,
        }
        logging.getLogger("gen4det").addHandler(_log_file(args.output.with_name("train.log")))
        record = RunRecord(
            args.output,
            settings=settings.model_dump(mode="json"),
            code=code,
            seeds={"seed": settings.seed},
            inputs=tuple(inputs),
        )
    else:
        logging.getLogger("gen4det").setLevel(logging.ERROR)
    with Deadline(args.max_seconds) as deadline, record or contextlib.nullcontext():
        from gen4det.detection.training import train  # takes seconds, after all that can fail at once

        try:
            trained = train(
                settings,
                dataset,
                args.synthetic,
                args.output,
                fingerprint=fingerprint,
                device=device,
                workers=args.workers,
                stop=deadline,
            )
        except RefusedInput as refusal:
            if record is not None:
                refuse(args.output, refusal.reason)
                record.add(refused=refusal.reason)
            return
        if not trained.finished:
            log.warning("stopped after iteration %d; run the same command again", trained.iteration)
            sys.exit(deadline.exit_status)
        if record is not None:
            learned = {"split": dataset.train.hash, "synthetic": fingerprint["synthetic sets"]}
            record.add(device=device, trained_on=learned, **trained.facts)
    log.info("wrote %s after %d iterations", args.output, trained.iteration)


def refuse(output: Path, reason: str) -> None:
    """Write that there is no detector, and why."""
    from gen4det.detection.weights import save_refusal

    log.warning("not trained: %s", reason)
    with atomic_write(output.with_name("losses.csv")) as temporary:
        temporary.write_text("iteration,loss\n")
    save_refusal(output, reason)


def _log_file(path: Path) -> logging.Handler:
    """What is logged is also kept beside the weights, over all attempts."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


if __name__ == "__main__":
    run(main)
