"""Measure how right the labels of a fitted labeller are, in scenes that the miniature renders: there alone
the truth is known.

Writes <output> (.json): labels that are right, all labels and all objects, of base and of novel categories,
along the epochs of the fit and at several least scores, and the same of the labelling detector; <output>.zip
with drawn images, whose labels before and after self-training the JSON holds; and <output>.record.json.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gen4det.core.provenance import RunRecord, write_json
from gen4det.core.settings import Settings
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.diffusion.settings import FoundationSettings, ModelSource
from gen4det.engines.base import engine_settings
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device
from gen4det.stages.detect import require_trained_on

Count = Annotated[int, Field(ge=1)]


class LabelQualitySettings(Settings):
    """Settings of this stage."""

    engine: dict[str, Any]
    """All settings of the variant."""
    foundation: FoundationSettings = FoundationSettings()
    """Pretrained models the variant starts from."""
    scenes: Count = 200
    """Rendered scenes that are labelled; the paper counts on 200 images."""
    shown: Count = 6
    """Drawn images of base and of novel categories each, whose labels are kept to be shown."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    for name in ("generator", "head"):
        parser.add_argument(f"--{name}", required=True, type=Path, metavar="FOLDER", help="what a fit wrote")
    parser.add_argument("--detector", required=True, type=Path, metavar="FILE", help="weights: the labeller")
    parser.add_argument("--shard", required=True, type=Path, metavar="FILE", help="<k>.arrow of drawn images")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="<name>.json")
    add_device_arguments(parser)
    args = parser.parse_args()
    settings = stage_settings(args, LabelQualitySettings)
    variant = engine_settings(settings.engine.get("method", ""), settings.engine, source="--settings: engine")
    dataset = load_dataset(args.dataset)
    require_trained_on(args.detector, dataset)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.label_quality",),
        inputs=(args.dataset, args.detector, args.shard),
    ) as record:
        from gen4det.engines.instagen.feature_bank import FeatureBank
        from gen4det.engines.instagen.label_quality import measure

        device = torch_device(args.device)
        fitted = ModelSource(path=str(args.generator))
        seen = fitted if variant.features.model == "generator" else settings.foundation.diffusion
        found, images = measure(
            variant,
            dataset,
            FeatureBank(seen, variant.features.precision, device),
            head=args.head,
            detector=args.detector,
            shard=args.shard,
            scenes=settings.scenes,
            shown=settings.shown,
        )
        with ShardWriter(args.output.with_suffix(".zip")) as writer:
            for number, (about, image) in enumerate(zip(found["shown"], images, strict=True)):
                about["image"] = f"{number:02d}.png"
                writer.add(about["image"], encode_image(image, "png"))
        write_json(args.output, found, indent=1)
        record.add(device=device, scenes=settings.scenes)


if __name__ == "__main__":
    run(main)
