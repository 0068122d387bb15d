"""Measure how faithful the images that an engine drew are: to their layouts, and to the real images.

Writes <output> and <output>.record.json: average precision of a detector of real images against the layout,
as a whole and by attribute; the share of objects that CLIP calls by their names; the Frechet distance of
features from those of the real training images, null with the reason where there are too few images.
"""

import logging

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import RunRecord, content_hash, write_json
from gen4det.core.settings import Settings
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ImageStore, image_name
from gen4det.data.model_settings import ModelSource
from gen4det.data.shards import image_folder, load_run, shard_identity
from gen4det.evaluation.fidelity_settings import FeatureSettings
from gen4det.evaluation.measures.fidelity import asked_for, layout_fidelity, named_rightly
from gen4det.stages._cli import run, stage_parser, stage_settings
from gen4det.stages._device import add_device_arguments, torch_device

log = logging.getLogger("gen4det.fidelity")


class FidelityStageSettings(Settings):
    """Settings of this stage."""

    features: FeatureSettings
    """The network whose features are compared."""
    clip: ModelSource | None = None
    """CLIP; null: nobody is asked for names."""


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json of the real images")
    parser.add_argument(
        "--shards", required=True, nargs="+", metavar="FILE", help="<k>.json, as they were drawn"
    )
    parser.add_argument(
        "--detections", required=True, nargs="+", metavar="FILE", help="what `detect` found in them"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="fidelity.json")
    add_device_arguments(parser, batch_size=32)
    args = parser.parse_args()
    settings = stage_settings(args, FidelityStageSettings)
    dataset = load_dataset(args.dataset)
    shards = load_run(args.shards)
    found = detections_of(shards, args.detections, training_hash=dataset.train.hash)
    with RunRecord(
        args.output,
        settings=settings.model_dump(mode="json"),
        code=("gen4det.stages.fidelity",),
        inputs=(args.dataset, *args.shards, *args.detections),
    ) as record:
        from gen4det.evaluation.encoders import load_encoder
        from gen4det.evaluation.measures.frechet import frechet_distance, image_features

        device = torch_device(args.device)
        asked = asked_for(shards)
        store = ImageStore(image_folder(args.shards[0], shards[0]))
        drawn = (store.image(image_name(record)) for record in asked["images"])
        real = dataset.train.load()["images"]
        encoder, about = load_encoder(settings.features, device)
        first = store.image(image_name(asked["images"][0])).shape[:2]
        batch = 1 if about["side"] is None and sizes_differ([*asked["images"], *real]) else args.batch_size
        features = image_features(drawn, encoder, batch_size=batch)
        originals = (dataset.train.images.image(image_name(record)) for record in real)
        try:
            distance, why = (
                frechet_distance(image_features(originals, encoder, batch_size=batch), features),
                None,
            )
        except InputError as error:
            distance, why = None, str(error)
            log.warning("%s", why)
        named = {} if settings.clip is None else names(asked, store, settings.clip, device)
        result = {
            "layout": layout_fidelity(asked, found),
            "named": named_rightly(asked, named) if named else {},
            "frechet": distance,
            "frechet_missing": why,
            "frechet_of": about | {"drawn": len(features), "real": len(real), "features": features.shape[1]},
        }
        write_json(args.output, result, indent=1)
        record.add(device=device, images=len(features), size=list(first), **result["frechet_of"])
    log.info("layout AP %s, Frechet distance %s", result["layout"].get("all", {}).get("AP"), distance)


def sizes_differ(images: list[dict]) -> bool:
    """Whether images have several sizes, so that no batch holds them as they are."""
    return len({(image["height"], image["width"]) for image in images}) > 1


def detections_of(
    shards: list[dict], paths: list[str], *, training_hash: str
) -> dict[str, list[list[float]]]:
    """Detections in all shards, by image id.

    Raises:
        InputError: of other images than the shards', or by a detector that was trained on another split.
    """
    left = {content_hash(shard_identity(shard)): shard for shard in shards}
    found: dict[str, list[list[float]]] = {}
    for path in paths:
        data = read_json(path, "detections")
        if (
            not {"of", "split", "detections"} <= data.keys()
            or left.pop(content_hash(data["of"]), None) is None
        ):
            raise InputError(f"{path}: detections of other images than the shards hold; detect again")
        if data["split"] != training_hash:
            raise InputError(f"{path}: by a detector that was trained on another training split")
        found |= data["detections"]
    if left:
        raise InputError(f"fidelity: {len(left)} of {len(shards)} shards have no detections")
    return found


def names(asked: dict, store: ImageStore, clip: ModelSource, device: str) -> dict[int, bool]:
    """Label id -> whether CLIP calls the drawn object by its own category, of those large enough to look
    at."""
    from gen4det.diffusion.words import spoken_name
    from gen4det.filters.clip_naming import Namer, crop

    categories = [category["id"] for category in asked["categories"]]
    namer = Namer(clip.path, clip.revision, [spoken_name(it) for it in asked["categories"]], device)
    by_image: dict[int, list[dict]] = {}
    for label in asked["annotations"]:
        if label["drawn"]:
            by_image.setdefault(label["image_id"], []).append(label)
    verdicts: dict[int, bool] = {}
    for record in asked["images"]:
        image = store.image(image_name(record))
        members = [(it, crop(image, it["bbox"])) for it in by_image.get(record["id"], [])]
        members = [(label, part) for label, part in members if part is not None]
        if members:
            places = namer.nearest([part for _, part in members])
            for (label, _), place in zip(members, places, strict=True):
                verdicts[label["id"]] = categories[place] == label["category_id"]
    return verdicts


if __name__ == "__main__":
    run(main)
