"""Which real objects are easy and which are hard: read from a detector's answers about the real images."""

import logging
from collections import Counter
from pathlib import Path

from gen4det.core.provenance import atomic_write
from gen4det.engines import base
from gen4det.engines.detdiffusion.attributes import (
    EASY,
    about,
    attributes_of,
    read_detections,
    write_attributes,
)
from gen4det.engines.detdiffusion.settings import Settings
from gen4det.training.stop import Deadline

LITTLE_SIGNAL = (0.5, 0.95)
"""Shares of easy objects outside of which the two words say little (assumed)."""

log = logging.getLogger(__name__)


class Fit(base.Fit):
    """P.A. Attr. Nothing is learned: a table of annotation ids is written."""

    settings: Settings

    def fit(self, work: Path, fingerprint: dict, output: Path, stop: Deadline) -> dict:
        """See `base.Fit.fit`. The folder holds attributes.json, empty where no detector is asked."""
        settings, split = self.settings, self.dataset.train.hash
        found, facts = {}, about(settings.detector, settings.attributes, split)
        if settings.detector is not None:
            (path,) = self.inputs.detections["dataset"]
            detections = read_detections(path, training_hash=split)
            annotations, boxes = self.dataset.train.load(), detections["detections"]
            if settings.attributes.folds > 1:
                boxes = self._unseen(work, stop)
                if boxes is None:
                    return {}
            found = attributes_of(annotations, boxes, settings.attributes)
            facts |= {"detector": detections["detector"], "easy": share_of_easy(found)}
        work.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as folder:
            write_attributes(folder, found, facts)
        return {"objects": len(found), "easy_share": facts.get("easy")}

    def _unseen(self, work: Path, stop: Deadline) -> dict[str, list[list[float]]] | None:
        """Detections by detectors that have not seen the images; None if it was stopped."""
        from gen4det.engines.detdiffusion.out_of_fold import out_of_fold

        asked = self.settings.attributes
        return out_of_fold(
            self.dataset,
            asked.fold_detector,
            asked.folds,
            self.settings.detector.seed,
            work,
            device=self.device,
            workers=self.workers,
            stop=stop,
        )


def share_of_easy(found: dict[int, str]) -> float | None:
    """Share of easy objects, in [0, 1]; said, with a warning where it leaves the words little to tell."""
    if not found:
        return None
    share = Counter(found.values())[EASY] / len(found)
    log.info("%.1f%% of %d objects are easy", 100 * share, len(found))
    low, high = LITTLE_SIGNAL
    if not low <= share <= high:
        log.warning(
            "detdiffusion: %.1f%% of the objects are easy: the attributes tell little; "
            "attributes.min_score and attributes.min_iou set what counts", 100 * share,
        )  # fmt: skip
    return round(share, 4)
