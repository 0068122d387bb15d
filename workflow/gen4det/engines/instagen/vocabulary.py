"""Which categories are labelled in the training images, which are novel, and that no label leaks."""

from dataclasses import dataclass

from gen4det.core.errors import InputError
from gen4det.data.annotations import category_counts
from gen4det.data.datasets import Dataset

SHOWN = 5
"""Names in an error."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of categories, in the order of the data set."""

    base: tuple[int, ...]
    """Those with labels in training."""
    novel: tuple[int, ...]
    """Those without."""
    every: tuple[int, ...]
    """All of the data set, those that are neither among them."""

    @property
    def known(self) -> frozenset[int]:
        """Those that somebody labels."""
        return frozenset(self.base + self.novel)


def vocabulary(dataset: Dataset, kind: str) -> Vocabulary:
    """Categories as the data set marks them.

    Args:
        kind: "open" or "closed".

    Raises:
        InputError: an open vocabulary, but no category is base or none is novel.
    """
    every = tuple(category["id"] for category in dataset.categories)
    if kind == "closed":
        return Vocabulary(every, (), every)
    base, novel = (
        tuple(category["id"] for category in dataset.categories if category.get("split") == split)
        for split in ("base", "novel")
    )
    for split, found in (("base", base), ("novel", novel)):
        if not found:
            raise InputError(
                f"instagen: no category of {dataset.name} is {split}; use a subset with labels: base, or "
                "vocabulary: closed"
            )
    return Vocabulary(base, novel, every)


def require_no_leak(dataset: Dataset, words: Vocabulary) -> None:
    """Refuse training images with labels of novel categories: generator and detector learn from them.

    Raises:
        InputError: names the categories.
    """
    if not words.novel:
        return
    annotations = dataset.train.load()
    counts = category_counts(annotations)
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    leaked = [f"{names[it]!r} ({counts[it][1]} labels)" for it in words.novel if counts.get(it, (0, 0))[1]]
    if leaked:
        more = f" and {len(leaked) - SHOWN} more" if len(leaked) > SHOWN else ""
        raise InputError(
            f"{dataset.train.annotations_path}: a leak: labels of novel categories in the training data of "
            f"the labelling detector: {', '.join(leaked[:SHOWN])}{more}; use a subset with labels: base"
        )
