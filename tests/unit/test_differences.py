"""What is said of a change: more than chance, or not."""

import numpy as np
import pytest
from scipy import stats

from gen4det.evaluation.differences import category_changes, interval


def metrics(values, kind="box"):
    groups = "rrcf"
    return {
        "per_category": [
            {"id": k, "frequency": groups[k % 4], "split": None, f"{kind}_AP": value}
            for k, value in enumerate(values)
        ]
    }


def coverage(seed_spread: float, category_spread: float, noise: float, *, seeds=3, categories=24) -> float:
    """Share of intervals that hold the true change, 0, over simulated tables."""
    rng, held, tables = np.random.default_rng(1), 0, 200
    for _ in range(tables):
        changes = (
            seed_spread * rng.normal(size=(seeds, 1))
            + category_spread * rng.normal(size=(1, categories))
            + noise * rng.normal(size=(seeds, categories))
        )
        found = interval(changes.mean(axis=1), changes)
        held += found.low <= 0 <= found.high
    return held / tables


@pytest.mark.parametrize(
    ("seed_spread", "category_spread", "noise"), [(2, 0, 0), (2, 0, 5), (0, 5, 5), (1, 5, 3), (0, 0, 5)]
)
def test_no_change_is_told_from_nothing_one_time_in_twenty_at_most(seed_spread, category_spread, noise):
    assert coverage(seed_spread, category_spread, noise) >= 0.92


def test_of_seeds_alone_it_is_students_interval():
    values = [1.0, 2.5, 0.5, 3.0]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.15)
    assert found.categories is None


def test_one_seed_tells_nothing():
    assert interval([12.0], np.full((1, 8), 12.0)) is None and interval([]) is None


def test_changes_are_those_of_categories_that_both_have_in_all_seeds():
    own = {0: metrics([5, 6, 7, 8]), 1: metrics([5, 6, 7, 9])}
    other = {0: metrics([1, 2, 3, 4]), 1: metrics([1, 2, None, 4])}
    assert category_changes(own, other, "box_AP", [0, 1]).tolist() == [[4, 4, 4], [4, 4, 5]]
    assert category_changes(own, other, "box_APr", [0, 1]).tolist() == [[4, 4], [4, 4]]
    assert category_changes(own, other, "box_AP50", [0, 1]) is None
    assert category_changes(own, other, "mask_AP", [0, 1]) is None


def test_the_same_numbers_give_the_same_interval():
    changes = np.random.default_rng(2).normal(size=(3, 24))
    assert interval(changes.mean(axis=1), changes) == interval(changes.mean(axis=1), changes)
