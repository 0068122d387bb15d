"""Draw the same layouts as several engines drew them, side by side, with a detector's boxes.

Writes <output> (.pdf, with a .png beside it) and <output>.record.json.
"""

from itertools import accumulate
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import RunRecord
from gen4det.core.settings import Settings
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ImageStore
from gen4det.data.shards import image_folder, load_shard
from gen4det.stages._cli import run, stage_parser, stage_settings


class LayoutPageSettings(Settings):
    """Settings of this stage."""

    engines: tuple[str, ...]
    """Whose images are shown, in this order."""
    shards: tuple[int, ...]
    """Number of shards of each."""
    seed: int = 0
    """Which layouts are shown."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json of the real images")
    parser.add_argument("--shards", required=True, nargs="+", metavar="FILE", help="<k>.arrow of all engines")
    parser.add_argument(
        "--detections", required=True, nargs="+", metavar="FILE", help="likewise, in their order"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="<name>.pdf")
    args = parser.parse_args()
    settings = stage_settings(args, LayoutPageSettings)
    given = (len(args.shards), len(args.detections), len(settings.engines))
    if given != (sum(settings.shards), sum(settings.shards), len(settings.shards)):
        raise InputError(
            f"layout page: {given[0]} shards and {given[1]} files of detections; expected "
            f"{', '.join(map(str, settings.shards))} of each kind for {', '.join(settings.engines)}"
        )
    dataset = load_dataset(args.dataset)

    from gen4det.evaluation.layout_page import DrawnSet, layout_page
    from gen4det.evaluation.plotting import save_figure

    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.layout_page",),
        inputs=(args.dataset, *args.shards, *args.detections),
    ):
        sets: list[DrawnSet] = []
        for end, count, name in zip(
            accumulate(settings.shards), settings.shards, settings.engines, strict=True
        ):
            part = slice(end - count, end)
            paths = [Path(path) for path in args.shards[part]]
            shards = [load_shard(path) for path in paths]
            data = {key: [it for shard in shards for it in shard[key]] for key in ("images", "annotations")}
            found: dict = {}
            for path in args.detections[part]:
                found |= read_json(path, "detections")["detections"]
            sets.append(DrawnSet(name, ImageStore(image_folder(paths[0], shards[0])), data, found))
        page = layout_page(dataset.train.load(), dataset.train.images, sets, seed=settings.seed)
        save_figure(page, args.output)


if __name__ == "__main__":
    run(main)
