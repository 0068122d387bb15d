"""Keep each label, or reject it for the first filter it fails. Filters run in the order of the settings.

Verdicts are found from columns (`data.label_tables`), a batch of whole images at a time: but for
`max_images`, no filter compares one image with another.
"""

from collections.abc import Iterable

import numpy as np

from gen4det.core.provenance import seed_for
from gen4det.data.label_columns import Columns, as_arrow
from gen4det.data.label_sets import BY_ENGINE, OFFERED
from gen4det.data.label_tables import records_of
from gen4det.filters.agreement import LOW_IOU, LOW_SCORE, NO_MATCH, disagreements
from gen4det.filters.label_filters import LABEL_FILTERS, failed_filters
from gen4det.filters.measurements import Measurements
from gen4det.filters.overlaps import overlapped
from gen4det.filters.settings import FilterSettings

UNUSED = "generations_per_reference"
"""Reason for rejecting images beyond the number of generations per reference that the settings ask for."""

BEYOND = "max_images"
"""Reason for not offering images that pass every filter, beyond the number that the settings ask for."""

ALONE = "nothing drawn in the image was kept"
"""Reason for rejecting crowds and untouched real objects that pass every filter, in an image where no
generated object does."""

REASONS = (
    UNUSED, "aesthetic", *LABEL_FILTERS, "max_overlap", NO_MATCH, LOW_SCORE, LOW_IOU, "max_instances", ALONE,
    BEYOND,
)  # fmt: skip
"""Verdict k is the k-th of these, from 1 on."""
CODES = {reason: number for number, reason in enumerate(REASONS, start=1)}


class Judgement:
    """Verdicts on the labels of one batch, uint8, by all filters but the one that compares images.

    Whole images are judged first, then single labels; then images that still have too many labels lose all of
    them. Crowds are regions to ignore, not objects, and untouched objects of a real image ("real") were
    not generated: both are kept as long as a generated object of their image is.

    Args:
        columns: of whole images. What the engine itself has rejected stays rejected, `BY_ENGINE`.
        measured: what the aesthetic and the agreement filter look at, where they are on.

    Attributes:
        verdicts: (labels,) uint8; they may be changed afterwards.
        labelled: (images,) bool, whether a generated object of the image was kept.
    """

    def __init__(
        self,
        columns: Columns,
        settings: FilterSettings,
        measured: Measurements = Measurements(),  # noqa: B008  (immutable)
    ):
        self.columns = columns
        self.verdicts = np.where(columns.known("reason"), BY_ENGINE, OFFERED).astype(np.uint8)
        self._crowd = columns.whole("iscrowd") != 0
        self._judge(settings, measured)

    def _refuse(self, which: np.ndarray, reason: str) -> None:
        self.verdicts[which & (self.verdicts == OFFERED)] = CODES[reason]

    def _passed(self) -> np.ndarray:
        return (self.verdicts == OFFERED) & ~self._crowd

    def _judge(self, settings: FilterSettings, measured: Measurements) -> None:
        columns = self.columns
        for reason, images in refused_images(columns, settings, measured):
            self._refuse(images[columns.image], reason)
        for reason, labels in failed_filters(columns, self._passed(), settings):
            self._refuse(labels & ~self._crowd, reason)
        if settings.max_overlap is not None:
            records = self._records("score", "labeller")
            refused = overlapped(records, settings.max_overlap, among=settings.max_overlap_among)
            self._refuse(np.isin(np.arange(columns.count), sorted(refused)), "max_overlap")
        if settings.agreement.enabled:
            unclear = disagreements(self._records("real"), measured.detections, settings.agreement)
            for reason in sorted(set(unclear.values())):
                chosen = [place for place, why in unclear.items() if why == reason]
                self._refuse(np.isin(np.arange(columns.count), chosen), reason)
        images = columns.batch.num_rows
        if settings.max_instances is not None:
            count = np.bincount(columns.image[self._passed()], minlength=images)
            self._refuse((count > settings.max_instances)[columns.image], "max_instances")
        drawn = self._passed() & (columns.whole("real") == 0)
        self.labelled = np.bincount(columns.image[drawn], minlength=images) > 0
        self._refuse(~self.labelled[columns.image], ALONE)

    def _records(self, *more: str) -> list[dict]:
        """Small records of the labels that have passed so far; their "id" is their place in the batch."""
        columns, places = self.columns, np.flatnonzero(self._passed())
        images = columns.of_image("id")[columns.image[places]].tolist()
        boxes, categories = columns.boxes()[places].tolist(), columns.whole("category_id")[places].tolist()
        further = {name: columns.field(name).take(as_arrow(places)).to_pylist() for name in more}
        records = []
        for number, place in enumerate(places.tolist()):
            record = {"id": place, "image_id": images[number], "category_id": categories[number]}
            given = {name: values[number] for name, values in further.items() if values[number] is not None}
            records.append(record | {"bbox": boxes[number]} | given)
        return records


def refused_images(
    columns: Columns, settings: FilterSettings, measured: Measurements
) -> Iterable[tuple[str, np.ndarray]]:
    """(setting, the whole images that it drops, (images,) bool), in the order of the settings."""
    if (limit := settings.generations_per_reference) is not None:
        images = (image for image, _ in records_of(columns.batch.drop_columns(["labels"])))
        # "number" counts, from 0, the images generated from one reference image
        yield UNUSED, np.array([image.get("number", 0) >= limit for image in images], dtype=bool)
    if settings.aesthetic.enabled:
        scores = [measured.scores[identifier] for identifier in columns.of_image("id").tolist()]
        yield "aesthetic", np.array(scores, dtype=np.float64) < measured.threshold


def offered_images(labelled: np.ndarray, most: int) -> np.ndarray:
    """Of images that pass all filters those that are offered; a smaller number is a part of a larger one.

    Args:
        labelled: (N,) ids of the images.
        most: how many are offered.
    """
    return np.array(sorted(labelled.tolist(), key=_place)[:most], dtype=np.int64)


def _place(image_id: int) -> tuple[int, int]:
    """Where an image stands among those that may be offered."""
    return seed_for(0, BEYOND, image_id), image_id


def refuse_beyond(columns: Columns, verdicts: np.ndarray, offered: np.ndarray) -> None:
    """Reject, in place, the labels of the images that are not among those offered."""
    spare = ~np.isin(columns.of_image("id"), offered)[columns.image]
    verdicts[spare & (verdicts == OFFERED)] = CODES[BEYOND]
