"""The fast bilateral solver: snaps a coarse mask to the colour edges of its image.

Barron and Poole, "The Fast Bilateral Solver", ECCV 2016, with the hard splatting and the bistochastisation of
Barron et al. 2015; used by MosaicFusion, section 3.3, for edge refinement.

Pixels of similar position and colour share one vertex of a sparse 5-D grid. On its vertices, y minimises

    lam * y' (D_m - D_n B D_n) y + sum_i confidence_i * (y_i - target_i)^2

where B adds up neighbours in the grid, D_n makes it doubly stochastic and D_m are its row sums.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from gen4det.engines.mosaicfusion.mask_settings import BilateralSolverSettings

# JPEG (ITU-R BT.601, full range): rows Y, U, V; chroma is offset by 128.
RGB_TO_YUV = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
CHROMA_OFFSET = 128
SELF_WEIGHT = 10.0  # of a vertex in the blur; each of its neighbours has 1


def refine(mask: np.ndarray, rgb: np.ndarray, settings: BilateralSolverSettings) -> np.ndarray:
    """Move the outline of a mask to the edges of the image.

    Args:
        mask: bool (H, W).
        rgb: uint8 (H, W, 3), the pixels the mask lies on.

    Returns:
        bool (H, W). An empty mask stays empty; holes are not filled.

    Raises:
        ValueError: the shapes disagree.
    """
    if rgb.shape != (*mask.shape, 3):
        raise ValueError(f"mask {mask.shape} and image {rgb.shape} differ in size")
    if settings.passes == 0 or not mask.any():
        return mask
    solver = BilateralSolver(rgb, settings)
    for _ in range(settings.passes):
        solution = solver.solve(255.0 * mask)
        peak = solution.max()
        if not peak > 0:
            return np.zeros_like(mask)
        mask = solution > settings.threshold * peak
    return mask


class BilateralSolver:
    """The linear system of one image; it depends on the image alone and serves any number of targets."""

    def __init__(self, rgb: np.ndarray, settings: BilateralSolverSettings):
        self.settings = settings
        self.shape = rgb.shape[:2]
        self.vertex_of_pixel, edges = _grid(rgb, settings)
        self.pixels = np.bincount(self.vertex_of_pixel).astype(np.float64)
        count = len(self.pixels)

        sources, targets = np.concatenate([edges, edges[::-1]], axis=1)
        neighbours = sparse.csr_array((np.ones(len(sources)), (sources, targets)), shape=(count, count))

        def blur(values: np.ndarray) -> np.ndarray:
            return SELF_WEIGHT * values + neighbours @ values

        normaliser = np.ones(count)
        for _ in range(settings.bistochastic_iterations):
            normaliser = np.sqrt(normaliser * self.pixels / blur(normaliser))
        row_sums = normaliser * blur(normaliser)

        # lam * (D_m - D_n B D_n) + diag(confidence * pixels): the diagonal apart from the rest
        self.diagonal = settings.lam * (row_sums - SELF_WEIGHT * normaliser**2) + (
            settings.confidence * self.pixels
        )
        rows = np.repeat(np.arange(count), np.diff(neighbours.indptr))
        neighbours.data = -settings.lam * normaliser[rows] * normaliser[neighbours.indices]
        self.off_diagonal = neighbours

    def solve(self, target: np.ndarray) -> np.ndarray:
        """Smooth a target within the edges of the image.

        Args:
            target: float (H, W).

        Returns:
            float64 (H, W), constant on the pixels of each vertex.
        """
        splat = np.bincount(self.vertex_of_pixel, weights=target.ravel(), minlength=len(self.pixels))
        solution = _conjugate_gradient(
            lambda y: self.diagonal * y + self.off_diagonal @ y,
            self.settings.confidence * splat,
            start=splat / self.pixels,
            preconditioner=1 / np.maximum(self.diagonal, self.settings.diagonal_floor),
            tolerance=self.settings.tolerance,
            max_iterations=self.settings.max_iterations,
        )
        return solution[self.vertex_of_pixel].reshape(self.shape)


def _conjugate_gradient(
    matrix: Callable[[np.ndarray], np.ndarray],
    right: np.ndarray,
    *,
    start: np.ndarray,
    preconditioner: np.ndarray,
    tolerance: float,
    max_iterations: int,
) -> np.ndarray:
    """Conjugate gradient with a diagonal preconditioner, for a symmetric positive definite matrix.

    What scipy's `cg` computes, but with sums by numpy: scipy's go through BLAS, whose result depends on the
    number of threads from 10,000 unknowns on, and a mask must not depend on where it was refined.
    """
    solution = start.copy()
    residual = right - matrix(solution)
    goal = tolerance**2 * np.sum(right * right)
    direction, previous = np.zeros_like(right), np.inf
    for _ in range(max_iterations):
        if np.sum(residual * residual) <= goal:
            break
        preconditioned = preconditioner * residual
        product = np.sum(residual * preconditioned)
        direction = preconditioned + (product / previous) * direction
        image = matrix(direction)
        step = product / np.sum(direction * image)
        solution += step * direction
        residual -= step * image
        previous = product
    return solution


def _grid(rgb: np.ndarray, settings: BilateralSolverSettings) -> tuple[np.ndarray, np.ndarray]:
    """Occupied vertices of the bilateral grid.

    Returns:
        The vertex of every pixel, int64 (H * W,), and the pairs of vertices one step apart on any of the five
        axes, int64 (2, pairs), each pair once.
    """
    height, width = rgb.shape[:2]
    red, green, blue = (rgb[:, :, channel].ravel().astype(np.float64) for channel in range(3))
    y, u, v = (a * red + b * green + c * blue for a, b, c in RGB_TO_YUV)
    axes = [
        np.tile(np.arange(width) / settings.sigma_spatial, height),
        np.repeat(np.arange(height) / settings.sigma_spatial, width),
        y / settings.sigma_luma,
        (u + CHROMA_OFFSET) / settings.sigma_chroma,
        (v + CHROMA_OFFSET) / settings.sigma_chroma,
    ]
    # Five coordinates packed into one integer; a free cell between rows of each axis keeps a step over the
    # border from landing on a vertex of the next row.
    packed = np.zeros(height * width, dtype=np.int64)
    strides = []
    stride = 1
    for values in axes:
        cells = np.floor(values).astype(np.int64)
        cells -= cells.min()
        packed += stride * cells
        strides.append(stride)
        stride *= int(cells.max()) + 2

    vertices, vertex_of_pixel = np.unique(packed, return_inverse=True)
    edges = []
    for stride in strides:
        neighbour = np.minimum(np.searchsorted(vertices, vertices + stride), len(vertices) - 1)
        here = np.flatnonzero(vertices[neighbour] == vertices + stride)
        edges.append(np.stack([here, neighbour[here]]))
    return vertex_of_pixel.ravel(), np.concatenate(edges, axis=1)
