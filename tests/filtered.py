"""Sets as the stage `filter` makes them of shards, or its verdicts on labels, that a test has at hand."""

from argparse import Namespace
from pathlib import Path

import numpy as np

from gen4det.core.provenance import file_hash
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset, write_split
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.label_columns import Columns
from gen4det.data.label_sets import OFFERED
from gen4det.data.label_tables import LabelTable, write_table
from gen4det.data.shards import archive_digest
from gen4det.filters.measurements import Measurements
from gen4det.filters.settings import FilterSettings
from gen4det.filters.verdicts import REASONS, Judgement, offered_images, refuse_beyond
from gen4det.stages import filter as stage


def write_shard(folder: Path, data: dict, pixels=None, number: int = 0, shards: int = 1) -> Path:
    """A shard of these labels, images of no pixels but those given; its "info" is made here."""
    archive = folder / f"{number:05d}.zip"
    with ShardWriter(archive) as writer:
        for image in data["images"] if pixels is not None else []:
            writer.add(Path(image["file_name"]).name, encode_image(pixels, "png"))
    digest = archive_digest(archive)
    info = {"shard": number, "shards": shards, "run": "r", "archive": archive.name, "digest": digest}
    write_table(archive.with_suffix(".arrow"), data | {"info": info})
    return archive.with_suffix(".arrow")


def write_filtered(
    shards: list[Path],
    output: Path,
    settings: FilterSettings | None = None,
    form: str = "coco",
    dataset: Path | None = None,
) -> Path:
    """What a filter, off by default, makes of shards; without a data set for one of their categories."""
    arguments = Namespace(
        dataset=dataset or _names(shards, output, form), shards=shards, output=output,
        aesthetic=[], calibration=None, detections=[], workers=1,
    )  # fmt: skip
    stage.choose(arguments, settings or FilterSettings(), {str(path): file_hash(path) for path in shards})
    return output


def _names(shards: list[Path], output: Path, form: str) -> Path:
    """Descriptor of a data set without images."""
    data = {"images": [], "annotations": [], "categories": LabelTable.open(shards[0]).about["categories"]}
    folder = output.parent / "names"
    folder.mkdir(parents=True)
    train = SplitDescriptor(**write_split(folder, "train", data), images=".")
    write_dataset(folder / "dataset.json", DatasetDescriptor(name="names", format=form, train=train))
    return folder / "dataset.json"


def split_labels(
    images: list[dict],
    annotations: list[dict],
    settings: FilterSettings,
    measured: Measurements = Measurements(),  # noqa: B008  (immutable)
) -> tuple[list[dict], list[dict]]:
    """Labels that are kept, and those that are not, each with the "reason"; of dictionaries, in memory.

    Args:
        images, annotations: COCO records; what the engine itself has rejected is not among them.
        measured: what the aesthetic and the agreement filter look at, where they are on.

    Returns:
        Kept records as they were; copies of the rejected ones. Both in the order of `annotations`.
    """
    table = LabelTable.of({"images": images, "annotations": annotations})
    judged = [(c, Judgement(c, settings, measured)) for c in map(Columns, table.batches)]
    if settings.max_images is not None:
        labelled = [columns.of_image("id")[it.labelled] for columns, it in judged]
        offered = offered_images(np.concatenate(labelled), settings.max_images)
        for columns, it in judged:
            refuse_beyond(columns, it.verdicts, offered)
    ids = (columns.whole("id").tolist() for columns, _ in judged)
    verdicts = (it.verdicts.tolist() for _, it in judged)
    found = {
        key: it
        for some, codes in zip(ids, verdicts, strict=True)
        for key, it in zip(some, codes, strict=True)
    }
    kept = [a for a in annotations if found[a["id"]] == OFFERED]
    rejected = [a | {"reason": REASONS[found[a["id"]] - 1]} for a in annotations if found[a["id"]] != OFFERED]
    return kept, rejected
