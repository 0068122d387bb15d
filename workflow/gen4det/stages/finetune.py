"""Let an engine learn from the training images before it draws; only for engines that need it.

Writes <output>, a folder that `generate --model` takes, and <output>.record.json. What the engine keeps to
resume after an interruption lies in the folder `work` beside <output>.
"""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import RunRecord
from gen4det.data.datasets import load_dataset
from gen4det.engines.base import load_engine
from gen4det.stages._cli import run, stage_parser
from gen4det.stages._device import torch_device
from gen4det.stages._engine import drawing_settings


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="the fitted model")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes for CPU work beside")
    args = parser.parse_args()
    drawing = drawing_settings(args)
    if not drawing.engine.needs_fit:
        raise InputError(f"--settings: engine.method: {drawing.engine.method} is training-free")
    dataset = load_dataset(args.dataset)
    device = torch_device(args.device)
    with RunRecord(
        args.output,
        settings=drawing.resolved(),
        code=("gen4det.stages.finetune", drawing.module),
        seeds={"run_seed": drawing.run_seed},
        inputs=(args.dataset, dataset.train.annotations_path),
    ) as record:
        record.add(device=device)
        engine = load_engine(
            drawing.engine, drawing.foundation, drawing.run_seed, device=device, workers=args.workers
        )
        engine.fit(dataset, args.output.parent / "work", args.output)
        if not args.output.exists():
            raise RuntimeError(f"{type(engine).__module__}: fit wrote no {args.output}")


if __name__ == "__main__":
    run(main)
