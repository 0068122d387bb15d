"""The grounding head: scores, padding, losses against brute force (specification: scores and losses)."""

import itertools
import math

import numpy as np
import pytest
import torch

from gen4det.detection.grounding_head import CosineScore, Found, GroundingHead, Objects, predictions
from gen4det.detection.grounding_settings import GroundingLosses, GroundingShape

CHANNELS, TEXT = [12, 20, 28], 16
SMALL = GroundingShape(
    channels=32,
    encoder_layers=1,
    decoder_layers=6,
    queries=12,
    heads=4,
    feed_forward=32,
    text_heads=2,
    text_feed_forward=32,
    fusion_channels=32,
)


@pytest.fixture(scope="module")
def head() -> GroundingHead:
    torch.manual_seed(0)
    return GroundingHead(CHANNELS, TEXT, SMALL).eval()


def batch(images: int, classes: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    features = [
        torch.randn(images, width, side, side, generator=draw)
        for width, side in zip(CHANNELS, (8, 4, 2), strict=True)
    ]
    return features, torch.randn(images, classes, TEXT, generator=draw)


# --- scores -----------------------------------------------------------------------------------------


def test_a_score_depends_on_its_query_and_its_class_alone():
    """The released code normalises over queries and over the two classes instead (its weakness 1)."""
    score = CosineScore(log_scale=math.log(10.0), bias=True)
    draw = torch.Generator().manual_seed(1)
    queries, classes = torch.randn(2, 9, 32, generator=draw), torch.randn(2, 4, 32, generator=draw)
    named = torch.ones(2, 4, dtype=torch.bool)
    full = score(queries, classes, named)
    torch.testing.assert_close(score(queries[:, 2:5], classes, named), full[:, 2:5], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        score(queries, classes[:, 1:2], named[:, 1:2]), full[..., 1:2], atol=1e-6, rtol=0
    )
    cosine = torch.nn.functional.cosine_similarity(queries[0, 3], classes[0, 2], dim=0)
    assert float(full[0, 3, 2]) == pytest.approx(10 * float(cosine) + math.log(0.01 / 0.99), abs=1e-5)


@torch.no_grad()
def test_first_scores_are_about_a_hundredth(head):
    wide = GroundingHead(CHANNELS, TEXT, SMALL.model_copy(update={"channels": 256, "score_scale": 1.0}))
    features, text = batch(2, 3)
    scores = wide.eval()(features, text, torch.ones(2, 3, dtype=torch.bool)).logits[-1].sigmoid()
    assert float(scores.mean()) == pytest.approx(0.01, rel=0.3)


@torch.no_grad()
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_any_number_of_classes_and_padding_changes_nothing(head, classes):
    features, text = batch(3, 5)
    named = torch.arange(5).expand(3, 5) < torch.tensor([classes, 1, 5])[:, None]
    found = head(features, text, named)
    other = text.clone()
    other[~named] = 1e4  # whatever stands there
    torch.testing.assert_close(head(features, other, named).logits, found.logits)
    alone = head([it[:1] for it in features], text[:1, :classes], named[:1, :classes])
    torch.testing.assert_close(alone.logits, found.logits[:, :1, :, :classes], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.boxes, found.boxes[:, :1], atol=1e-5, rtol=1e-5)
    for (scores, slots, boxes), there in zip(predictions(found, named), named, strict=True):
        assert set(slots.tolist()) <= set(there.nonzero()[:, 0].tolist())
        assert torch.isfinite(scores).all() and scores.diff().le(0).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()


@torch.no_grad()
def test_padding_gets_exactly_no_attention(head):
    """mmdet's fusion turns the -9e15 of a mask of booleans back into True."""
    attention = head.encoder.fusion_layers[0].attn
    vision, language = torch.randn(1, 6, 32), torch.randn(1, 3, 32)
    named = torch.tensor([[True, True, False]])
    changed = language.clone()
    changed[0, 2] += 7
    first = attention(vision, language, attention_mask_l=named.float())[0]
    second = attention(vision, changed, attention_mask_l=named.float())[0]
    assert torch.equal(first, second)
    loose = [attention(vision, it, attention_mask_l=named)[0] for it in (language, changed)]
    assert not torch.equal(*loose)  # so it is with a mask of booleans: why ours is one of numbers


@torch.no_grad()
def test_detections_are_the_best_pairs_of_query_and_class():
    logits = torch.full((1, 1, 3, 2), -4.0)
    logits[0, 0, 1, 1], logits[0, 0, 2, 0] = 3.0, 1.0
    boxes = torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [0.5, 0.25, 0.5, 0.5], [0.9, 0.5, 0.4, 0.2]]]])
    found = Found(logits, boxes, logits[0], boxes[0])
    scores, slots, corners = predictions(found, torch.ones(1, 2, dtype=torch.bool), most=2)[0]
    torch.testing.assert_close(scores, torch.tensor([3.0, 1.0]).sigmoid())
    assert slots.tolist() == [1, 0]
    torch.testing.assert_close(corners, torch.tensor([[0.25, 0.0, 0.75, 0.5], [0.7, 0.4, 1.0, 0.6]]))


# --- losses -----------------------------------------------------------------------------------------


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def giou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = np.prod(np.clip(high - low, 0, None))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return inter / union - (hull - union) / hull


def focal(probability: np.ndarray, target: np.ndarray) -> np.ndarray:
    right = np.where(target, probability, 1 - probability)
    return np.where(target, 0.25, 0.75) * (1 - right) ** 2 * -np.log(right)


def test_losses_are_those_of_the_best_matching_by_brute_force(head):
    """One layer, three objects, weights 1/5/2, costs 2/5/2."""
    draw = np.random.default_rng(4)
    logits = draw.normal(-2, 1, (5, 2))
    boxes = np.concatenate([draw.uniform(0.3, 0.7, (5, 2)), draw.uniform(0.1, 0.5, (5, 2))], 1)
    truth = np.concatenate([draw.uniform(0.3, 0.7, (3, 2)), draw.uniform(0.1, 0.5, (3, 2))], 1)
    slots = np.array([1, 0, 1])
    probability = 1 / (1 + np.exp(-logits))

    def cost(query: int, number: int) -> float:
        wanted = np.arange(2) == slots[number]
        p = probability[query]
        yes = 0.25 * (1 - p) ** 2 * -np.log(p)
        no = 0.75 * p**2 * -np.log(1 - p)
        scores = np.where(wanted, yes, no).sum()
        return (
            2 * scores
            + 5 * abs(boxes[query] - truth[number]).sum()
            - 2 * giou(corners(boxes[query]), corners(truth[number]))
        )

    best = min(itertools.permutations(range(5), 3), key=lambda it: sum(cost(q, n) for n, q in enumerate(it)))
    target = np.zeros((5, 2), bool)
    for number, query in enumerate(best):
        target[query, slots[number]] = True
    expected = {
        "loss_cls": focal(probability, target).sum() / 3,
        "loss_bbox": 5 * sum(abs(boxes[q] - truth[n]).sum() for n, q in enumerate(best)) / 3,
        "loss_iou": 2 * sum(1 - giou(corners(boxes[q]), corners(truth[n])) for n, q in enumerate(best)) / 3,
    }
    found = Found(*[torch.tensor(it, dtype=torch.float32)[None, None] for it in (logits, boxes)], None, None)
    objects = [Objects(torch.tensor(corners(truth), dtype=torch.float32), torch.tensor(slots))]
    losses = head.loss(found, objects, torch.ones(1, 2, dtype=torch.bool))
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_every_layer_has_three_losses(head):
    features, text = batch(2, 2)
    named = torch.ones(2, 2, dtype=torch.bool)
    losses = head.loss(head(features, text, named), [one_object(), none()], named)
    kinds = [name.rpartition(".")[2].removeprefix("enc_") for name in losses]
    assert len(kinds) == 7 * 3 and {kinds.count(kind) for kind in kinds} == {7}
    assert sum(losses.values()).isfinite()


def test_an_image_without_objects_has_no_loss_of_boxes(head):
    features, text = batch(2, 2)
    named = torch.ones(2, 2, dtype=torch.bool)
    losses = head.loss(head(features, text, named), [none(), none()], named)
    assert all(float(value) == 0 for name, value in losses.items() if not name.endswith("cls"))
    assert sum(losses.values()).isfinite() and sum(losses.values()) > 0


def test_perfect_boxes_cost_nothing(head):
    objects = one_object()
    centre = torch.tensor([[0.4, 0.4, 0.4, 0.4]])
    boxes = torch.cat([centre, torch.rand(3, 4)])[None, None]
    logits = torch.tensor([9.0, -9, -9, -9])[None, None, :, None]
    losses = head.loss(Found(logits, boxes, None, None), [objects], torch.ones(1, 1, dtype=torch.bool))
    assert float(losses["loss_bbox"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["loss_iou"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["loss_cls"]) < 1e-6


def test_classes_that_nobody_labels_have_no_gradient(head):
    """The released code trains them as absent (its weakness 6)."""
    logits = torch.randn(1, 2, 4, 3, requires_grad=True)
    found = Found(logits, torch.rand(1, 2, 4, 4), None, None)
    learned = torch.tensor([[True, False, True], [True, True, False]])
    sum(head.loss(found, [one_object(), one_object()], learned).values()).backward()
    per_class = logits.grad.abs().sum((0, 2))
    assert torch.equal(per_class > 0, learned)


def test_weights_of_losses_are_settings():
    torch.manual_seed(0)
    plain = GroundingHead(CHANNELS, TEXT, SMALL)
    torch.manual_seed(0)
    other = GroundingHead(CHANNELS, TEXT, SMALL, GroundingLosses(score=3.0))
    features, text = batch(1, 1)
    named = torch.ones(1, 1, dtype=torch.bool)
    plain.eval(), other.eval()
    first, second = (
        it.loss(it(features, text, named), [one_object()], named)["loss_cls"] for it in (plain, other)
    )
    assert float(second) == pytest.approx(3 * float(first), rel=1e-5)


def one_object() -> Objects:
    return Objects(torch.tensor([[0.2, 0.2, 0.6, 0.6]]), torch.tensor([0]))


def none() -> Objects:
    return Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
