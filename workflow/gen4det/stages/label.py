"""Do a label step of an engine: label the images of one drawn shard, without drawing them again.

Writes <output>, labels in the layout of a shard's own (a table of COCO records, rejected labels, the archive
that they belong to), and <output>.record.json.
"""

import functools
import logging
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.provenance import RunRecord, code_hash, content_hash
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ImageStore
from gen4det.data.label_tables import write_table
from gen4det.data.manifests import batches_of_shard, read_batches
from gen4det.data.shards import image_folder, load_shard, read_array, shard_identity
from gen4det.engines.base import Drawn, Labels
from gen4det.engines.shard_writer import FIRST_IMAGE_ID, label_records
from gen4det.stages._cli import run, stage_parser
from gen4det.stages._device import add_device_arguments, torch_device
from gen4det.stages._engine import add_reads, hash_of, step_inputs, step_job

log = logging.getLogger("gen4det.label")


def main() -> None:
    """Entry point."""
    parser = stage_parser(__doc__)
    parser.add_argument("--dataset", required=True, metavar="FILE", help="dataset.json")
    parser.add_argument("--manifest", required=True, metavar="FILE", help="manifest.jsonl of `plan`")
    parser.add_argument(
        "--shard", required=True, type=Path, metavar="FILE", help="<k>.arrow of the drawn shard"
    )
    add_reads(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="table of labels")
    add_device_arguments(parser, workers="processes that load images")
    args = parser.parse_args()
    job = step_job(args, "label")
    dataset = load_dataset(args.dataset)
    inputs = step_inputs(args, job, dataset, drawn=args.shard)
    shard = load_shard(args.shard)
    device = torch_device(args.device)
    code = ("gen4det.stages.label", job.module)
    planned, _ = read_batches(args.manifest, shard["info"]["shard"], shard["info"]["shards"])
    batches = drawn_batches(args.shard, shard, list(chain.from_iterable(planned.values())))
    with RunRecord(
        args.output,
        settings=job.resolved(),
        code=code,
        seeds={"run_seed": job.run_seed},
        inputs=(args.dataset, args.manifest, args.shard),
    ) as record:
        worker = job.worker(inputs, device=device, workers=args.workers)
        labelled = label_all(worker.label(batches), batches, job.module)
        read = hash_of(inputs)
        identity = {  # what all shards of a run have in common
            "settings": {**args.settings, "settings": job.resolved()},
            "code": code_hash(*code),
            "models": {name: read[name] for name in inputs.models},
            "run": shard["info"]["run"],
            "device": device,
        }
        data = labels_of_shard(shard, labelled)
        archive = image_folder(args.shard, shard) / Path(shard["info"]["archive"]).name
        data["info"] = shard["info"] | {
            "description": "labels of generated images",
            "run": content_hash(identity),
            "drawn": shard_identity(shard),
            "archive": os.path.relpath(archive.resolve(), args.output.resolve().parent),
        }
        write_table(args.output, data)
        record.add(device=device, images=len(data["images"]), labels=len(data["annotations"]), read=read)
    log.info("%d labels in %d images", len(data["annotations"]), len(data["images"]))


def drawn_batches(path: Path, shard: dict, rows: list[dict]) -> list[list[Drawn]]:
    """The images of a shard, batch by batch of the manifest; read when they are asked for.

    Raises:
        InputError: the shard is not one of this manifest.
    """
    folder, archive = image_folder(path, shard), Path(shard["info"]["archive"]).name
    store = ImageStore(folder)
    records = {image["id"] - FIRST_IMAGE_ID: image for image in shard["images"]}
    labels: dict[int, list[dict]] = {}
    for annotation in shard["annotations"]:
        labels.setdefault(annotation["image_id"] - FIRST_IMAGE_ID, []).append(annotation)
    batches = []
    for _, members in batches_of_shard(rows, shard["info"]["shard"], shard["info"]["shards"]):
        missing = [row["index"] for row in members if row["index"] not in records]
        if missing:
            raise InputError(f"{path}: no image of row {missing[0]}; it was not drawn from this manifest")
        batches.append([
            Drawn(
                row,
                records[row["index"]],
                labels.get(row["index"], []),
                functools.partial(store.image, records[row["index"]]["file_name"]),
                functools.partial(read_array, store, archive, row["index"]),
            )
            for row in members
        ])  # fmt: skip
    if sum(map(len, batches)) != len(records):
        raise InputError(f"{path}: holds images that this manifest does not ask for")
    return batches


def label_all(labelled: Iterator[list[Labels]], batches: list[list[Drawn]], module: str) -> dict[int, Labels]:
    """Labels by the index of the manifest row.

    Raises:
        RuntimeError: the labeller left images out.
    """
    found: dict[int, Labels] = {}
    with progress(None, "labelling", "image", total=sum(map(len, batches))) as bar:
        for batch, labels in zip(batches, labelled, strict=True):
            if len(labels) != len(batch):
                raise RuntimeError(f"{module}: {len(batch)} images in a batch, labels of {len(labels)}")
            found |= {drawn.row["index"]: of_image for drawn, of_image in zip(batch, labels, strict=True)}
            bar.update(len(batch))
    return found


def labels_of_shard(shard: dict, labelled: dict[int, Labels]) -> dict:
    """The shard's dictionary with new labels; the draw step's rejected ones are gone with its labels."""
    data: dict = {
        "images": shard["images"],
        "categories": shard["categories"],
        "annotations": [],
        "rejected": [],
    }
    for image in shard["images"]:
        index = image["id"] - FIRST_IMAGE_ID
        annotations, rejected = label_records(image["id"], labelled[index])
        data["annotations"] += annotations
        data["rejected"] += rejected
    return data


if __name__ == "__main__":
    run(main)
