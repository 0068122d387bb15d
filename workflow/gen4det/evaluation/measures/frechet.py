"""Frechet distance between two sets of image features, e.g. FID (Heusel et al. 2017, arXiv 1706.08500).

The distance alone: which encoder makes the features, at which size of images and from which file type decides
about the number more than the images do, and belongs to whoever reports it.
"""

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
from scipy.linalg import eigh

from gen4det.core.errors import InputError

Encoder = Callable[[list[np.ndarray]], np.ndarray]
"""Images, uint8 (H, W, 3) each, to features (N, D)."""


def image_features(images: Iterable[np.ndarray], encoder: Encoder, *, batch_size: int = 32) -> np.ndarray:
    """Features, float64 (N, D), of images, uint8 (H, W, 3) each; so many at a time are in memory.

    Raises:
        InputError: no image.
    """
    remaining, features = iter(images), []
    while batch := list(islice(remaining, batch_size)):
        features.append(np.asarray(encoder(batch), np.float64))
    if not features:
        raise InputError("Frechet distance: no image to compute features of")
    return np.concatenate(features)


def frechet_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the normal distributions fitted to two sets of features.

    Computed in float64; the trace of the root comes from the eigenvalues of C1^(1/2) C2 C1^(1/2), which is
    symmetric and has those of C1 C2.

    Args:
        real, drawn: (N, D) and (M, D), a row per image.

    Returns:
        The squared distance, at least 0.

    Raises:
        InputError: features of different encoders, not finite, or no more images than features: covariances
            of so few are singular, and the distance says more of their number than of the images.
    """
    real, drawn = np.asarray(real, np.float64), np.asarray(drawn, np.float64)
    if real.ndim != 2 or drawn.ndim != 2 or real.shape[1] != drawn.shape[1]:
        raise InputError(f"Frechet distance: features of shapes {real.shape} and {drawn.shape}")
    for name, features in (("real", real), ("drawn", drawn)):
        count, size = features.shape
        if count <= size:
            raise InputError(
                f"Frechet distance: {count} {name} images for features of {size} numbers; "
                f"at least {size + 1} are needed, and several times as many for a stable value"
            )
        if not np.isfinite(features).all():
            raise InputError(f"Frechet distance: features of {name} images that are not finite numbers")
    shift = real.mean(axis=0) - drawn.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (real, drawn))
    values, vectors = eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = eigh(root @ second @ root, eigvals_only=True)
    cross = np.sqrt(np.clip(product, 0, None)).sum()
    return max(0.0, float(shift @ shift + np.trace(first) + np.trace(second) - 2 * cross))
