"""The agreement filter: which labels a detector of real objects confirms (Gen2Det, instance-level filter)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from filtered import split_labels
from gen4det.filters.agreement import (
    LOW_IOU,
    LOW_SCORE,
    NO_MATCH,
    box_iou,
    compact,
    unconfirmed,
)
from gen4det.filters.measurements import Measurements
from gen4det.filters.settings import AgreementSettings, FilterSettings
from gen4det.filters.verdicts import ALONE

ON = AgreementSettings(enabled=True)
IMAGE = {"id": 1, "height": 100, "width": 100}


def label(x=0.0, width=10.0, category=1, identifier=1, **more) -> dict:
    box = [x, 0.0, width, 10.0]
    return {"id": identifier, "image_id": 1, "category_id": category, "bbox": box, "area": 100.0, **more}


def detection(x=0.0, width=10.0, category=1, score=0.9) -> list[float]:
    return [category, score, x, 0.0, width, 10.0]


def widths_of_iou(percent: int) -> tuple[float, float]:
    """A label of this width holds a detection of that width, which overlaps it by so many per cent."""
    return 100.0, float(percent)


@given(st.integers(0, 2**32 - 1))
def test_iou_is_that_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    boxes, others = (np.round(rng.uniform(0, 30, (n, 4)), rng.integers(0, 3)) for n in (6, 9))
    expected = coco_mask.iou(boxes, others, [0] * len(others))
    solid = (boxes[:, 2:].prod(1)[:, None] > 0) | (others[:, 2:].prod(1) > 0)  # 0 / 0 is left open there
    np.testing.assert_allclose(box_iou(boxes, others)[solid], expected[solid], rtol=1e-12, atol=1e-12)


def test_empty_boxes_overlap_nothing():
    box = np.array([[5.0, 5.0, 0.0, 0.0]])
    assert box_iou(box, box) == 0


WIDE, AT, BELOW = widths_of_iou(30)[0], widths_of_iou(30)[1], widths_of_iou(29)[1]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([detection(width=AT)], None),
        ([detection(width=BELOW)], LOW_IOU),
        ([detection(width=AT, score=0.10)], None),
        ([detection(width=AT, score=0.099)], LOW_SCORE),
        ([detection(width=BELOW, score=0.099)], NO_MATCH),
        ([detection(width=WIDE, category=2)], NO_MATCH),
        ([detection(width=WIDE, category=2), detection(width=BELOW)], LOW_IOU),
        ([detection(width=WIDE, score=0.05), detection(width=BELOW)], LOW_SCORE),
        ([detection(x=300.0)], NO_MATCH),
        ([], NO_MATCH),
    ],
)
def test_iou_score_and_class_at_their_limits(found, reason):
    assert unconfirmed([label(width=WIDE)], found, ON) == [reason]


def test_one_detection_may_confirm_two_labels():
    labels = [label(0.0, 10.0, identifier=1), label(5.0, 10.0, identifier=2)]
    assert unconfirmed(labels, [detection(2.0, 11.0)], ON) == [None, None]


def test_without_same_class_any_detection_confirms():
    settings = ON.model_copy(update={"same_class": False})
    assert unconfirmed([label(category=1)], [detection(category=2)], settings) == [None]


def test_only_the_best_detections_count():
    found = [detection(x=50.0, score=0.9), detection(score=0.8)]  # best first
    assert unconfirmed([label()], found, ON) == [None]
    assert unconfirmed([label()], found, ON.model_copy(update={"max_per_image": 1})) == [NO_MATCH]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_raising_a_threshold_never_adds_a_label(seed, iou, score, more):
    rng = np.random.default_rng(seed)
    labels = [label(rng.uniform(0, 40), rng.uniform(5, 30), int(rng.integers(2)), i) for i in range(6)]
    found = [
        detection(rng.uniform(0, 40), rng.uniform(5, 30), int(rng.integers(2)), rng.uniform())
        for _ in range(9)
    ]

    def kept(min_iou: float, min_score: float) -> set[int]:
        agreement = AgreementSettings(enabled=True, min_iou=min_iou, min_score=min_score)
        settings = FilterSettings(agreement=agreement)
        measured = Measurements(detections={"1": found})
        good, bad = split_labels([IMAGE], labels, settings, measured)
        assert sorted(a["id"] for a in good + bad) == list(range(6))
        return {a["id"] for a in good}

    start = kept(iou, score)
    assert kept(iou + (1 - iou) * more, score) <= start
    assert kept(iou, score + (1 - score) * more) <= start


def test_detections_are_stored_best_first_by_image():
    def found(image: int, score: float) -> dict:
        return {"image_id": image, "category_id": 3, "score": score, "bbox": [1 / 3, 2.0, 3.0, 4.0]}

    assert compact([found(7, 0.2), found(8, 0.5), found(7, 0.9)]) == {
        "7": [[3, 0.9, 0.333, 2.0, 3.0, 4.0], [3, 0.2, 0.333, 2.0, 3.0, 4.0]],
        "8": [[3, 0.5, 0.333, 2.0, 3.0, 4.0]],
    }


# --- among the other filters ----------------------------------------------------------------------------


def reasons(settings: FilterSettings, images, labels, detections=None, **measured) -> dict[int, str]:
    _, rejected = split_labels(
        images, labels, settings, Measurements(detections=detections or {}, **measured)
    )
    return {a["id"]: a["reason"] for a in rejected}


def test_the_order_of_the_filters():
    images = [{**IMAGE, "id": i, "reference_image_id": 7, "number": i % 2} for i in (1, 2, 3)]
    labels = [
        {**label(identifier=10), "image_id": 1},
        {**label(identifier=20, width=3.0), "image_id": 2},
        {**label(identifier=21, width=11.0), "image_id": 2},
        {**label(identifier=22), "image_id": 2},
        {**label(identifier=23), "image_id": 2},
        {**label(identifier=30), "image_id": 3},
    ]
    scores = {1: 1.0, 2: 5.0, 3: 4.999}
    found = {"2": [detection()]}
    settings = FilterSettings(
        aesthetic={"enabled": True},
        agreement={"enabled": True, "min_iou": 0.95},
        min_box_side=4,
        max_instances=1,
    )
    assert reasons(settings, images, labels, scores=scores, threshold=5.0, detections=found) == {
        10: "aesthetic", 20: "min_box_side", 21: LOW_IOU, 22: "max_instances", 23: "max_instances",
        30: "aesthetic",
    }  # fmt: skip
    settings = settings.model_copy(update={"generations_per_reference": 1})
    found = reasons(settings, images, labels, scores=scores, threshold=5.0, detections=found)
    assert [found[i] for i in (10, 30)] == ["generations_per_reference"] * 2
    assert found[20] == "min_box_side"


def test_images_of_engines_without_references_are_all_used():
    settings = FilterSettings(generations_per_reference=1)
    assert reasons(settings, [IMAGE], [label()]) == {}


def test_a_label_of_real_pixels_is_not_in_doubt():
    settings = FilterSettings(agreement=ON)
    labels = [label(identifier=1, real=True), label(identifier=2), label(identifier=3, category=2)]
    assert reasons(settings, [IMAGE], labels, detections={"1": [detection(category=2)]}) == {2: NO_MATCH}


def test_an_image_in_which_nothing_drawn_was_kept_shows_nothing_new():
    settings = FilterSettings(agreement=ON)
    labels = [label(identifier=1, real=True), label(identifier=2)]
    assert reasons(settings, [IMAGE], labels) == {1: ALONE, 2: NO_MATCH}


def test_a_crowd_stays_as_long_as_an_object_does():
    labels = [label(identifier=1), label(identifier=2, width=2.0, iscrowd=1)]
    settings = FilterSettings(agreement=ON, min_box_side=4, max_instances=1)
    assert reasons(settings, [IMAGE], labels, detections={"1": [detection()]}) == {}
    assert reasons(settings, [IMAGE], labels) == {1: NO_MATCH, 2: ALONE}
