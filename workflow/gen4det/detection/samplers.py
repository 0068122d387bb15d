"""Which images are seen when: endless orders that are functions of (seed, position).

Nothing here keeps state that matters. The k-th batch of a training is the same after a restart at k, and all
processes of a distributed training compute the same batches and take their own part of each.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from gen4det.core.provenance import seed_for
from gen4det.detection.label_index import Contents
from gen4det.training.interleaving import interleaved

_CHOICES = 4096  # draws of "which pool" that are made at once
_AT_ONCE = 4096  # draws of an epoch that are Python numbers at a time
_PORTION = 1 << 17  # images whose factors are rounded at a time


class Draw(NamedTuple):
    """One training example: which image, and the seed of its augmentation."""

    index: int
    seed: int


def repeat_factors(contents: Contents, threshold: float, counted: np.ndarray | None = None) -> np.ndarray:
    """How often each image is seen per epoch, so that rare categories are seen more often.

    Category c gets r(c) = max(1, sqrt(t / f(c))), f(c) the share of images that show it; an image gets the
    largest factor of its categories (Gupta, Dollar and Girshick 2019, LVIS, section 5.2).

    Args:
        contents: categories of each image.
        threshold: t; 0 gives all images factor 1.
        counted: (N,) bool, the images that f is counted on; None: all. A category that none of them shows
            counts as if one did.

    Returns:
        (N,) float64, at least 1.
    """
    if counted is None:
        counted = np.ones(len(contents), dtype=bool)
    factors = np.ones(len(contents))
    if not len(contents.labels):
        return factors
    total = max(1, int(counted.sum()))
    by_label = np.maximum(1.0, np.sqrt(threshold * total / np.maximum(1, _showing(contents, counted))))
    for some, labels, starts in contents.portions():
        shows = np.diff(starts) > 0
        if shows.any():
            factors[some][shows] = np.maximum.reduceat(by_label[labels], starts[:-1][shows])
    return factors


def _showing(contents: Contents, counted: np.ndarray) -> np.ndarray:
    """How many of the images that count show each label, int64."""
    images = np.zeros(int(contents.labels.max(initial=-1)) + 1, dtype=np.int64)
    for some, labels, starts in contents.portions():
        images += np.bincount(labels[np.repeat(counted[some], np.diff(starts))], minlength=len(images))
    return images


class Places(Mapping):
    """{index of a synthetic image: indices of real images}; images alike share one array.

    Args:
        label: (N,) int32, the category whose real images may be shown in the place of each; -1: none.
        shown: label -> indices of the real images that show it.
    """

    def __init__(self, label: np.ndarray, shown: dict[int, np.ndarray]):
        self._label, self._shown = label, shown

    def __getitem__(self, index: int) -> np.ndarray:
        label = int(self._label[index])
        if label < 0:
            raise KeyError(index)
        return self._shown[label]

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._label >= 0).tolist())

    def __len__(self) -> int:
        return int((self._label >= 0).sum())


def replayed(contents: Contents, synthetic: np.ndarray) -> Places:
    """For each synthetic image the real ones that may be shown in its place.

    Args:
        contents: categories of each image.
        synthetic: (N,) bool.

    Returns:
        {index of a synthetic image: indices of the real images that show, of its categories, the one that the
        fewest real images show; of equally rare ones the first}.

    Raises:
        ValueError: no real image shows any category of a synthetic one.
    """
    lists: dict[int, list[int]] = {}
    for index in np.flatnonzero(~synthetic).tolist():
        for label in contents[index]:
            lists.setdefault(label, []).append(index)
    shown = {label: np.array(indices) for label, indices in lists.items()}
    real = _showing(contents, ~synthetic)
    ranked = np.lexsort((np.arange(len(real)), np.where(real > 0, real, np.iinfo(real.dtype).max)))
    rank = np.argsort(ranked)  # the rarest first, those that no real image shows last
    chosen = np.full(len(contents), -1, dtype=np.int32)
    for some, labels, starts in contents.portions():
        shows = np.diff(starts) > 0
        if shows.any():
            rarest = ranked[np.minimum.reduceat(rank[labels], starts[:-1][shows])]
            chosen[some][shows] = np.where(real[rarest] > 0, rarest, -1)
    chosen[~synthetic] = -1
    if (lost := synthetic & (chosen < 0)).any():
        raise ValueError(f"image {int(np.argmax(lost))}: no real image shows any of its categories")
    return Places(chosen, shown)


class Pool:
    """Images in an endless random order, each as often as its factor says.

    In every epoch a factor of 2.3 means two times for sure and a third time with probability 0.3, as in LVIS
    and detectron2; rounding and order are drawn anew for each epoch from (seed, epoch).

    Args:
        indices: (N,) images of the pool.
        factors: (N,) how often each is seen per epoch.
        seed: of this pool.
    """

    def __init__(self, indices: np.ndarray, factors: np.ndarray, seed: int):
        if len(indices) == 0:
            raise ValueError("a pool without images")
        self.indices = np.asarray(indices)
        if self.indices.max() < 2**31:
            self.indices = self.indices.astype(np.int32, copy=False)
        self.factors = np.asarray(factors, dtype=np.float64)
        self.seed = seed

    def _counts(self, epoch: int) -> tuple[np.ndarray, np.random.Generator]:
        rng = np.random.default_rng(seed_for(self.seed, "epoch", epoch))
        counts = np.empty(len(self.factors), dtype=np.int32)
        for first in range(0, len(counts), _PORTION):
            factors = self.factors[first : first + _PORTION]
            whole = np.floor(factors)
            counts[first : first + _PORTION] = whole + (rng.random(len(factors)) < factors - whole)
        return counts, rng

    def epoch(self, epoch: int) -> np.ndarray:
        """All draws of an epoch, in order."""
        counts, rng = self._counts(epoch)
        return rng.permutation(np.repeat(self.indices, counts))

    def read(self, start: int = 0) -> Iterator[int]:
        """Images from a position on, without end."""
        epoch = 0
        while (length := int(self._counts(epoch)[0].sum())) <= start:
            start -= length
            epoch += 1
        while True:
            order = self.epoch(epoch)
            for first in range(start, len(order), _AT_ONCE):  # a Python number takes five times the memory
                yield from order[first : first + _AT_ONCE].tolist()
            start = 0
            epoch += 1


class BatchSampler(Sampler):
    """Endless batches; each, or each image in it, is drawn from one of several pools.

    Args:
        pools: e.g. one pool of all images, or real and synthetic images apart.
        batch_size: images per batch over all processes.
        seed: of the training.
        probabilities: chance of each pool to give a batch, or an image; None where there is only one.
        per_image: whether each image of a batch is drawn from a pool of its own choice.
        places: images that others are shown in the place of, one at random each time; see `replayed`.
        rank, world_size: this process and how many there are; batch_size must be a multiple of the latter.

    Attributes:
        start: number of the first batch; set it before iterating to go on with a training.
    """

    def __init__(
        self,
        pools: list[Pool],
        batch_size: int,
        seed: int,
        *,
        probabilities: list[float] | None = None,
        per_image: bool = False,
        places: Mapping[int, np.ndarray] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.pools = pools
        self.batch_size = batch_size
        self.seed = seed
        self.probabilities = [1.0] if probabilities is None else list(probabilities)
        if len(self.probabilities) != len(pools):
            raise ValueError(f"{len(pools)} pools, but {len(self.probabilities)} probabilities")
        if batch_size % world_size:
            raise ValueError(f"batch size {batch_size} is not a multiple of {world_size} processes")
        self.places = places or {}
        self._together = 1 if per_image else batch_size  # images that one choice of a pool is for
        self.rank, self.world_size = rank, world_size
        self.start = 0

    def __len__(self) -> int:
        """Batches after which every image was seen as often as its factor says, on average. It goes on."""
        return max(1, round(sum(pool.factors.sum() for pool in self.pools) / self.batch_size))

    def choices(self, start: int, stop: int) -> np.ndarray:
        """Which pool gives each of the batches, or images, [start, stop)."""
        if len(self.pools) == 1 or stop <= start:
            return np.zeros(stop - start, dtype=np.int64)
        first, last = start // _CHOICES, (stop - 1) // _CHOICES
        blocks = [
            np.random.default_rng(seed_for(self.seed, "pool", block)).choice(
                len(self.pools), size=_CHOICES, p=self.probabilities
            )
            for block in range(first, last + 1)
        ]
        return np.concatenate(blocks)[start - first * _CHOICES :][: stop - start]

    def __iter__(self) -> Iterator[list[Draw]]:
        per_batch = self.batch_size // self._together
        given = self.choices(0, self.start * per_batch)
        readers = [
            pool.read(int((given == number).sum()) * self._together) for number, pool in enumerate(self.pools)
        ]
        batch = self.start
        while True:
            chosen = self.choices(batch * per_batch, (batch + _CHOICES) * per_batch)
            for pools in chosen.reshape(_CHOICES, per_batch):
                indices = [next(readers[pool]) for pool in np.repeat(pools, self._together)]
                draws = [
                    Draw(self._shown(index, batch, place), seed_for(self.seed, "example", batch, place))
                    for place, index in enumerate(indices)
                ]
                yield draws[self.rank :: self.world_size]
                batch += 1

    def _shown(self, index: int, batch: int, place: int) -> int:
        """The image, or one of those that may be shown in its place."""
        if index not in self.places:
            return index
        others = self.places[index]
        return int(others[seed_for(self.seed, "replay", batch, place) % len(others)])


class InterleavedSampler(Sampler):
    """Endless batches, each of one pool alone; in every epoch each pool is exhausted once, its batches spread
    evenly among those of the others (InstaGen's code).

    A pool whose images do not fill its last batch shows its first ones of the epoch once more.

    Args:
        pools: of one source each.
        batch_size, seed, rank, world_size: see `BatchSampler`; so is the attribute `start`.
    """

    def __init__(self, pools: list[Pool], batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1):
        if batch_size % world_size:
            raise ValueError(f"batch size {batch_size} is not a multiple of {world_size} processes")
        self.pools, self.batch_size, self.seed = pools, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.start = 0

    def __len__(self) -> int:
        """Batches of an epoch, on average."""
        return max(1, round(sum(pool.factors.sum() for pool in self.pools) / self.batch_size))

    def epoch(self, number: int) -> Iterator[np.ndarray]:
        """The batches of an epoch."""
        orders = [pool.epoch(number) for pool in self.pools]
        counts = [-(-len(order) // self.batch_size) for order in orders]
        given = [0] * len(orders)
        for source in interleaved(counts):
            first = given[source] * self.batch_size
            given[source] += 1
            places = np.arange(first, first + self.batch_size) % len(orders[source])
            yield orders[source][places]

    def __iter__(self) -> Iterator[list[Draw]]:
        batch, epoch = 0, 0
        while True:
            for indices in self.epoch(epoch):
                if batch >= self.start:
                    draws = [
                        Draw(int(index), seed_for(self.seed, "example", batch, place))
                        for place, index in enumerate(indices)
                    ]
                    yield draws[self.rank :: self.world_size]
                batch += 1
            epoch += 1
