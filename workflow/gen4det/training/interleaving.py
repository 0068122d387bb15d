"""Batches of several sources, one after the other, each source spread evenly over an epoch."""

from collections.abc import Sequence

import numpy as np


def interleaved(counts: Sequence[int]) -> np.ndarray:
    """Which source gives each batch of an epoch.

    Batch i of n of a source stands at (i + 1/2) / n of the epoch, so that after any number of batches each
    source has given its share, within one batch.

    Args:
        counts: batches of each source.

    Returns:
        int64 (sum of counts,), every source as often as its count says.
    """
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    sources = np.repeat(np.arange(len(counts)), counts)
    return sources[np.argsort(places, kind="stable")]
