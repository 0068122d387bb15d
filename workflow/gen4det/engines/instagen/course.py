"""Which images are trained on in which step: a function of the step alone."""

import functools

import numpy as np

from gen4det.core.provenance import seed_for
from gen4det.training.interleaving import interleaved

BASE, NOVEL = 0, 1


class Course:
    """Epochs over images of base categories, later over those of novel ones, too.

    A batch is of one kind; those of both kinds are spread evenly over an epoch, and every image is seen in it
    once. Where images do not fill a kind's last batch, its first ones of the epoch fill it.

    Args:
        base, novel: numbers of images.
        batch_size: images of a step.
        epochs: all of them.
        novel_from: the first epoch, from 0, with images of novel categories; None: there is none.
    """

    def __init__(
        self, base: int, novel: int, *, batch_size: int, epochs: int, novel_from: int | None, seed: int
    ):
        self.sizes, self.batch_size, self.seed = (base, novel), batch_size, seed
        counts = [-(-size // batch_size) for size in self.sizes]
        starts = epochs if novel_from is None else min(novel_from, epochs)
        self._counts = [(counts[0], counts[1] if epoch >= starts else 0) for epoch in range(epochs)]
        self._ends = np.cumsum([sum(count) for count in self._counts]) if epochs else np.zeros(0, int)
        self.hand_over = int(self._ends[starts - 1]) if starts and epochs else 0
        """Step from which the teacher labels; all of them where it never does."""

    @property
    def steps(self) -> int:
        """All of them."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def epoch(self, step: int) -> int:
        """Number of the epoch of a step, from 0."""
        return int(np.searchsorted(self._ends, step, side="right"))

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """The kind of a step's images, BASE or NOVEL, and which of that kind, (batch_size,)."""
        epoch = self.epoch(step)
        start = int(self._ends[epoch - 1]) if epoch else 0
        kinds = interleaved(self._counts[epoch])
        kind = int(kinds[step - start])
        number = int((kinds[: step - start] == kind).sum())
        order = self._order(kind, epoch)
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size) % len(order)
        return kind, order[places]

    @functools.lru_cache(maxsize=2)  # noqa: B019  (lives as long as a training)
    def _order(self, kind: int, epoch: int) -> np.ndarray:
        return np.random.default_rng(seed_for(self.seed, "order", kind, epoch)).permutation(self.sizes[kind])
