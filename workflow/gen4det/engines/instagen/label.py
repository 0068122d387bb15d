"""Label drawn images: base categories by the detector, novel ones by the head (InstaGen, section 3.5)."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from gen4det.data.shards import load_shard
from gen4det.engines import base
from gen4det.engines.instagen.draw import LATENTS
from gen4det.engines.instagen.feature_bank import FeatureBank, texts_of
from gen4det.engines.instagen.fit_head import feature_bank
from gen4det.engines.instagen.samples import Found, base_labels, read_detections, slots_of
from gen4det.engines.instagen.saved_head import load_head
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.instagen.teacher import found_by
from gen4det.engines.instagen.vocabulary import require_no_leak, vocabulary
from gen4det.filters.agreement import box_iou

DETECTOR, HEAD = "detector", "head"
"""Labellers."""
SHOWN_FROM = 0.5
"""Share of beta from which what the head found is kept among the rejected labels, for inspection."""


class Labeller(base.Labeller):
    """An image of a base category is kept if the detector found one, an image of a novel category if a novel
    one was found."""

    settings: Settings

    @cached_property
    def bank(self) -> FeatureBank:
        """Loaded when the first image of a novel category is labelled."""
        return feature_bank(self)

    @cached_property
    def head(self):
        """The student."""
        return load_head(self.inputs.models["head"], self.bank)

    @cached_property
    def vectors(self) -> dict[int, torch.Tensor]:
        """Class vectors by category id."""
        return self.bank.vectors(self.dataset.categories)

    def label(self, batches: Iterable[list[base.Drawn]]) -> Iterator[list[base.Labels]]:
        """See `base.Labeller.label`."""
        self.words = vocabulary(self.dataset, self.settings.vocabulary)
        require_no_leak(self.dataset, self.words)
        shard = load_shard(self.inputs.shards["images"][0])
        answers = read_detections(self.inputs.detections["images"][0], shard)
        for batch in batches:
            found = self._novel(batch, answers)
            yield [
                self._labels(drawn, answers.get(str(drawn.record["id"]), []), of_image)
                for drawn, of_image in zip(batch, found, strict=True)
            ]

    def _used(self, record: dict) -> bool:
        chosen = self.settings.labels
        limit = chosen.base_per_category if record["set"] == "base" else chosen.novel_per_category
        return limit is None or record["number"] < limit

    def _novel(self, batch: Sequence[base.Drawn], answers: dict) -> list[list[Found]]:
        """Candidates of novel categories in each image of a batch, down to a share of beta."""
        found: list[list[Found]] = [[] for _ in batch]
        asked = [
            place
            for place, drawn in enumerate(batch)
            if drawn.record["set"] == "novel" and self._used(drawn.record)
        ]
        if self.settings.labels.novel_by == DETECTOR:
            for place in asked:
                found[place] = renamed(batch[place].record, answers, self.settings.labels.overlap)
        elif asked:
            records = [batch[place].record for place in asked]
            latents = torch.from_numpy(np.stack([batch[place].array(LATENTS) for place in asked]))
            features = self.bank(latents, records)
            text, named = texts_of(records, self.vectors), slots_of(records)
            device = features[0].device
            least = SHOWN_FROM * self.settings.beta
            new = found_by(
                self.head,
                features,
                text.to(device),
                named.to(device),
                records,
                frozenset(self.words.novel),
                least,
            )
            for place, of_image in zip(asked, new, strict=True):
                found[place] = suppressed(of_image, self.settings.labels.overlap)
        return found

    def _labels(self, drawn: base.Drawn, answers: list, candidates: list[Found]) -> base.Labels:
        record, by_detector = drawn.record, self.settings.labels.novel_by == DETECTOR
        if not self._used(record):
            return base.Labels(keep=False)
        known = base_labels(answers, record["categories"], self.words, self.settings.alpha)
        instances = [instance(it, DETECTOR) for it in known]
        if record["set"] == "base":
            return base.Labels(instances, keep=bool(instances))
        limit = self.settings.labels.detector_score if by_detector else self.settings.beta
        novel = [instance(it, HEAD) for it in candidates if it[1] > limit]
        rejected = [
            {"reason": "score of the head", "category_id": category, "bbox": box}
            for category, score, box in candidates
            if score <= limit and not by_detector
        ]
        if not novel:
            rejected += [
                {"reason": "no novel object", "category_id": it.category_id, "bbox": it.bbox}
                for it in instances
            ]
            return base.Labels([], rejected, keep=False)
        return base.Labels(instances + novel, rejected)


def instance(found: Found, labeller: str) -> base.Instance:
    """A label."""
    category, score, box = found
    return base.Instance(category, box, score=min(score, 1.0), labeller=labeller)


def renamed(record: dict, answers: dict, overlap: float | None) -> list[Found]:
    """What the detector takes for anything, under the name of the one category that was asked for; the
    control.

    Args:
        answers: by image id, see `read_detections`.
        overlap: IoU from which the worse of two boxes is left out; None: 0.5.
    """
    if len(record["categories"]) > 1:
        return []
    (category,) = record["categories"]
    found = [(category, score, list(box)) for _, score, *box in answers.get(str(record["id"]), [])]
    return suppressed(found, overlap or 0.5)


def suppressed(found: list[Found], overlap: float | None) -> list[Found]:
    """Without those that overlap a better one of their category by more than that, best first."""
    found = sorted(found, key=lambda it: -it[1])
    if overlap is None or len(found) < 2:
        return found
    boxes = np.array([box for *_, box in found])
    overlaps = box_iou(boxes, boxes)
    kept: list[int] = []
    for place, (category, *_) in enumerate(found):
        if all(overlaps[place, other] <= overlap or found[other][0] != category for other in kept):
            kept.append(place)
    return [found[place] for place in kept]
