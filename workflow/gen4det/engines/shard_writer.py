"""A shard in the making: one file per finished batch, so that a killed job loses no finished batch.

Files of the shard <prefix>:

    <prefix>.work/fingerprint.json   what the batches were drawn with
    <prefix>.work/00000012.zip       images and labels of batch 12
    <prefix>.zip, <prefix>.arrow     the finished shard; the table of labels appears last and completes it

Arrays that an engine keeps lie in the same zip, `arrays/<image>.<name>.npy` (`data.shards.read_array`).
"""

import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

from gen4det.core.json_files import dumps
from gen4det.core.provenance import content_hash
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.label_tables import LabelTableWriter
from gen4det.data.masks import area_of_rle
from gen4det.data.shards import archive_digest, array_name, encode_array
from gen4det.engines.base import Generated, Labels
from gen4det.training.work_folder import WorkFolder

FIRST_IMAGE_ID = 1_000_000
"""Larger than any image id of COCO and LVIS."""
LABELS_PER_IMAGE = 1000
"""Up to that many labels of an image have ids image id * this + position; see `annotation_id`."""
FURTHER_LABELS, MANY_LABELS = 10**15, 10**6
"""Ids of further ones, of which there may be that many, begin beyond those of a million million images."""
IMAGE_DROPPED = "another object of the image was rejected"
"""Reason for rejecting valid labels of an image that the engine drops."""
_LABELS = "labels.json"
_ENCODING = {"png": "png", "jpg": "jpeg"}

log = logging.getLogger(__name__)


class ShardInProgress:
    """Work folder of one shard.

    As a context manager it holds a lock on the folder, so that two jobs never draw the same shard.

    Args:
        prefix: path of the shard without ".zip" and ".arrow".
        run: everything that batches of the same run have in common, JSON-serialisable.
        shard, shards: this shard's number, from 0, and how many there are.
        image_format: "png" or "jpg".

    Raises:
        InputError: (on entering) the folder holds batches of another run, or another process draws them.
    """

    def __init__(self, prefix: str | Path, run: dict, shard: int, shards: int, image_format: str = "png"):
        self.archive = Path(f"{prefix}.zip")
        self.labels = Path(f"{prefix}.arrow")
        self.run, self.shard, self.shards = run, shard, shards
        self.image_format = image_format
        self._work = WorkFolder(
            f"{prefix}.work",
            {**run, "shard": shard, "shards": shards},
            doing="drawing this shard",
            keeps="*.zip",
            limit_attempts=False,  # each batch is progress, and the first is always finished
        )
        self.folder = self._work.path

    def __enter__(self) -> "ShardInProgress":
        self._work.__enter__()
        return self

    def __exit__(self, kind, value, traceback) -> None:
        self._work.__exit__(kind, value, traceback)

    # --- batches ------------------------------------------------------------------------------------

    def finished(self) -> set[int]:
        """Numbers of the batches that need not be drawn again. Damaged files are removed."""
        numbers = set()
        for path in sorted(self.folder.glob("*.zip")):
            try:
                _read_labels(path)
            except (zipfile.BadZipFile, OSError, KeyError, ValueError) as error:
                log.warning("%s: damaged, will be drawn again: %s", path, error)
                path.unlink()
            else:
                numbers.add(int(path.stem))
        return numbers

    def save(self, batch: int, generated: list[Generated], **facts: float) -> dict:
        """Write one finished batch.

        Args:
            facts: numbers for the run record (seconds, U-Net calls); added up over batches.

        Returns:
            Its labels: {"images", "annotations", "rejected", "facts"}.
        """
        labels = {"images": [], "annotations": [], "rejected": [], "facts": facts}
        with ShardWriter(self._batch_path(batch)) as writer:
            for item in generated:
                name = f"{item.row['index']:012d}.{self.image_format}"
                writer.add(name, encode_image(item.image, _ENCODING[self.image_format]))
                image, annotations, rejected = _records(item, f"{self.archive.name}/{name}")
                labels["images"].append(image)
                labels["annotations"] += annotations
                labels["rejected"] += rejected
                for key, array in item.arrays.items():
                    writer.add(array_name(item.row["index"], key), encode_array(array))
            writer.add(_LABELS, dumps(labels))
        return labels

    def _batch_path(self, batch: int) -> Path:
        return self.folder / f"{batch:08d}.zip"

    def labels_of(self, batches: list[int]) -> Iterator[dict]:
        """Labels of finished batches."""
        return (_read_labels(self._batch_path(batch)) for batch in batches)

    # --- the finished shard -------------------------------------------------------------------------

    def assemble(self, batches: list[int], categories: list[dict]) -> None:
        """Write the shard from its batches, in the order given; one of them is in memory at a time."""
        with ShardWriter(self.archive) as writer:
            for batch in batches:
                with zipfile.ZipFile(self._batch_path(batch)) as source:
                    for name in source.namelist():
                        if name != _LABELS:
                            writer.add(name, source.read(name))
        info = {
            "description": "generated images",
            "shard": self.shard,
            "shards": self.shards,
            "run": content_hash(self.run),
            "split": self.run.get("dataset"),  # hash of the training split
            "archive": self.archive.name,
            "digest": archive_digest(self.archive),
        }
        with LabelTableWriter(self.labels, {"info": info, "categories": categories}) as table:
            for labels in self.labels_of(batches):
                table.add_all(labels)

    def discard(self) -> None:
        """Remove the work folder, once everything that is made of it is written."""
        self._work.remove()


def _read_labels(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(_LABELS))


def _records(item: Generated, file_name: str) -> tuple[dict, list[dict], list[dict]]:
    """COCO records of one generated image: image, annotations, rejected labels."""
    image_id = FIRST_IMAGE_ID + item.row["index"]
    height, width = item.image.shape[:2]
    image = {"id": image_id, "file_name": file_name, "height": height, "width": width}
    image |= item.about
    return image, *label_records(image_id, item.labels)


def annotation_id(image_id: int, position: int) -> int:
    """Id of a label from its image and its position in it, so that it depends on nothing else."""
    if position < LABELS_PER_IMAGE:
        return image_id * LABELS_PER_IMAGE + position
    return FURTHER_LABELS + image_id * MANY_LABELS + position


def label_records(image_id: int, labels: Labels) -> tuple[list[dict], list[dict]]:
    """COCO records of the labels of one image: annotations, rejected labels."""
    annotations = []
    for position, instance in enumerate(labels.instances):
        box = [float(value) for value in instance.bbox]
        record = {
            "id": annotation_id(image_id, position),
            "image_id": image_id,
            "category_id": int(instance.category_id),
            "bbox": box,
            "area": float(box[2] * box[3] if instance.rle is None else area_of_rle(instance.rle)),
        }
        if instance.rle is not None:
            record["segmentation"] = instance.rle
        if instance.score is not None:
            record["score"] = float(instance.score)
        if instance.labeller is not None:
            record["labeller"] = instance.labeller
        if instance.untouched:
            record["real"] = True  # the name in stored sets
        if instance.crowd:
            record["iscrowd"] = 1
        annotations.append(record)
    rejected = [{"image_id": image_id, **record} for record in labels.rejected]
    if not labels.keep:
        rejected += [{**record, "reason": IMAGE_DROPPED} for record in annotations]
        annotations = []
    return annotations, rejected
