"""Whether a change against a baseline is more than chance, over few seeds and some categories.

Both detectors of a pair share seed, iterations and validation images. Of a seed s and a category c there is
one number, the change d[s, c] of average precision; the change of a table is its mean. Two things could have
come out otherwise:

- The categories and their validation images. Categories are resampled with replacement (bootstrap), the same
  ones for all seeds. What the choice of images does to a category is in the spread between categories.
- The seeds of the trainings. Three are too few to be resampled: a bootstrap of three values never leaves
  them, and the truth lies outside of three values one time in four. So the mean over seeds is given Student's
  distribution with n - 1 degrees of freedom around it.

An interval adds the two. A generated set is drawn once, so what another run of the generator would have given
is not in it. One seed tells nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Share of intervals that hold the true change."""
SAMPLES = 10_000
GROUPS = {
    "AP": lambda entry: True,
    "APr": lambda entry: entry.get("frequency") == "r",
    "APc": lambda entry: entry.get("frequency") == "c",
    "APf": lambda entry: entry.get("frequency") == "f",
    "APbase": lambda entry: entry.get("split") == "base",
    "APnovel": lambda entry: entry.get("split") == "novel",
    "APbasenovel": lambda entry: entry.get("split") in ("base", "novel"),
}
"""Metrics that are means over categories, and over which. Others have their seeds alone."""


@dataclass(frozen=True)
class Interval:
    """Where a change lies."""

    low: float
    high: float
    seeds: int
    categories: int | None
    """That were resampled; None: the metric is no mean over categories."""

    @property
    def told(self) -> bool:
        """Whether it is more than chance: no change at all is outside."""
        return self.low > 0 or self.high < 0


def category_changes(
    own: Mapping[int, dict], other: Mapping[int, dict], metric: str, seeds: Sequence[int]
) -> np.ndarray | None:
    """Changes of average precision, (seeds, categories) on 0 to 100; None: no mean over categories.

    Args:
        own, other: contents of metrics.json by seed.
        metric: e.g. "mask_APr".
        seeds: that both have.
    """
    kind, _, name = metric.partition("_")
    if name not in GROUPS:
        return None
    found = [[_by_category(side[seed], kind, name) for side in (own, other)] for seed in seeds]
    known = [set(values) for pair in found for values in pair]
    common = sorted(set.intersection(*known)) if known else []
    if not common:
        return None
    return np.array([[mine[it] - theirs[it] for it in common] for mine, theirs in found])


def _by_category(metrics: dict, kind: str, name: str) -> dict[int, float]:
    return {
        entry["id"]: entry[f"{kind}_AP"]
        for entry in metrics.get("per_category", ())
        if GROUPS[name](entry) and entry.get(f"{kind}_AP") is not None
    }


def interval(by_seed: Sequence[float], changes: np.ndarray | None = None) -> Interval | None:
    """Interval of a change at `LEVEL`; None of fewer than two seeds.

    Args:
        by_seed: the change of each seed.
        changes: (seeds, categories), what these are means of; None: resample no categories.
    """
    count = len(by_seed)
    if count < 2:
        return None
    rng = np.random.default_rng(0)
    values = np.asarray(by_seed, float)
    drawn = values.mean() + values.std(ddof=1) / count**0.5 * rng.standard_t(count - 1, SAMPLES)
    categories = None
    if changes is not None:
        categories = changes.shape[1]
        mean = changes.mean(axis=0)
        times = rng.multinomial(categories, np.full(categories, 1 / categories), SAMPLES)
        drawn += times @ (mean - mean.mean()) / categories
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), count, categories)
