"""The bilateral solver moves a coarse outline to the colour edge."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.sparse import diags_array
from scipy.sparse.linalg import cg

from gen4det.engines.mosaicfusion.bilateral_solver import BilateralSolver, refine
from gen4det.engines.mosaicfusion.mask_settings import BilateralSolverSettings
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.renderer import render_scene

SETTINGS = BilateralSolverSettings()
COARSE = {"shifted": (0.04, 0.3), "dilated": (0.0, 0.335), "eroded": (0.0, 0.265)}


def ellipse(height: int, width: int, shift: float = 0.0, radius: float = 0.3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.hypot(y / height - 0.5 - shift, x / width - 0.5 - shift) <= radius


def two_colours(mask: np.ndarray, noise: float = 4.0, seed: int = 0) -> np.ndarray:
    image = np.where(mask[..., None], (200, 60, 50), (60, 120, 180))
    image = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


# --- acceptance check 9: refinement -------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 128), (384, 512)])
@pytest.mark.parametrize("how", COARSE)
def test_solver_finds_the_two_colour_ellipse(size, how):
    truth = ellipse(*size)
    coarse = ellipse(*size, *COARSE[how])
    assert 0.75 < iou(coarse, truth) < 0.85
    assert iou(refine(coarse, two_colours(truth), SETTINGS), truth) >= 0.98


@pytest.mark.parametrize("how", COARSE)
def test_one_pass_is_enough_for_flat_colours(how):
    truth = ellipse(96, 128)
    once = BilateralSolverSettings(passes=1)
    assert iou(refine(ellipse(96, 128, *COARSE[how]), two_colours(truth), once), truth) >= 0.999


def test_empty_mask_stays_empty():
    empty = np.zeros((48, 64), bool)
    with np.errstate(all="raise"):
        assert not refine(empty, two_colours(ellipse(48, 64)), SETTINGS).any()


@pytest.mark.parametrize("image", [np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 255, np.uint8)])
def test_full_mask_and_images_of_one_colour_are_no_special_case(image):
    with np.errstate(all="raise"):
        assert refine(np.ones((20, 30), bool), image, SETTINGS).all()


def test_no_passes_means_no_refinement():
    coarse = ellipse(48, 64, 0.04)
    off = BilateralSolverSettings(passes=0)
    assert np.array_equal(refine(coarse, two_colours(ellipse(48, 64)), off), coarse)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="differ in size"):
        refine(np.ones((4, 5), bool), np.zeros((5, 4, 3), np.uint8), SETTINGS)


# --- against a literal reference ----------------------------------------------------------------------


def reference_solve(target: np.ndarray, rgb: np.ndarray, s: BilateralSolverSettings) -> np.ndarray:
    """The published system, written with dictionaries and dense loops, solved by scipy."""
    height, width = target.shape
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    u = -0.168736 * r - 0.331264 * g + 0.5 * b + 128
    v = 0.5 * r - 0.418688 * g - 0.081312 * b + 128
    vertices: dict[tuple, int] = {}
    where = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            cell = (
                x // s.sigma_spatial, y // s.sigma_spatial, luma[y, x] // s.sigma_luma,
                u[y, x] // s.sigma_chroma, v[y, x] // s.sigma_chroma,
            )  # fmt: skip
            where[y, x] = vertices.setdefault(cell, len(vertices))
    count = len(vertices)
    blur = 10 * np.eye(count)
    for cell, vertex in vertices.items():
        for axis in range(5):
            for step in (-1, 1):
                other = tuple(c + step * (i == axis) for i, c in enumerate(cell))
                if other in vertices:
                    blur[vertex, vertices[other]] += 1
    mass = np.bincount(where.ravel(), minlength=count).astype(float)
    n = np.ones(count)
    for _ in range(10):
        n = np.sqrt(n * mass / (blur @ n))
    m = n * (blur @ n)
    matrix = s.lam * (np.diag(m) - np.diag(n) @ blur @ np.diag(n)) + np.diag(s.confidence * mass)
    right = s.confidence * np.bincount(where.ravel(), weights=target.ravel())
    jacobi = diags_array(1 / np.maximum(np.diag(matrix), 1e-5))
    start = right / (s.confidence * mass)
    solution, _ = cg(matrix, right, x0=start, rtol=1e-5, maxiter=25, M=jacobi)
    return solution[where]


def test_solution_equals_the_reference():
    rng = np.random.default_rng(3)
    rgb = two_colours(ellipse(40, 56), noise=12)
    target = 255.0 * (rng.random((40, 56)) < 0.5)
    settings = BilateralSolverSettings(sigma_spatial=8)
    assert np.allclose(
        BilateralSolver(rgb, settings).solve(target), reference_solve(target, rgb, settings), atol=1e-6
    )


def test_result_does_not_depend_on_the_number_of_threads(tmp_path):
    program = (
        "import numpy as np, sys\n"
        "from gen4det.engines.mosaicfusion.bilateral_solver import BilateralSolver\n"
        "from gen4det.engines.mosaicfusion.mask_settings import BilateralSolverSettings\n"
        "rng = np.random.default_rng(0)\n"
        "rgb = rng.integers(60, 160, (200, 300, 3), dtype=np.uint8)\n"
        "solver = BilateralSolver(rgb, BilateralSolverSettings())\n"
        "assert len(solver.pixels) > 20000\n"
        "sys.stdout.buffer.write(solver.solve(255.0 * (rng.random((200, 300)) < 0.5)).tobytes())\n"
    )
    outputs = []
    for threads in ("1", "4"):
        env = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        outputs.append(subprocess.run([sys.executable, "-c", program], env=env, stdout=-1, check=True).stdout)
    assert len(outputs[0]) == 8 * 200 * 300
    assert outputs[0] == outputs[1]


def test_a_region_of_the_paper_takes_well_under_half_a_second():
    truth = ellipse(384, 512)
    image, coarse = two_colours(truth), ellipse(384, 512, 0.04)
    refine(coarse, image, SETTINGS)
    best = min(_seconds(coarse, image) for _ in range(5))
    assert best < 0.4  # 0.03 s where it was measured


def _seconds(coarse, image) -> float:
    start = time.process_time()  # the machine may be busy with other things
    refine(coarse, image, SETTINGS)
    return time.process_time() - start


# --- the miniature --------------------------------------------------------------------------------------


def test_scaled_widths_suit_small_soft_scenes():
    """64-px scenes, blurred like an autoencoder's output: the outline gets better for nearly every object."""
    small = BilateralSolverSettings(sigma_spatial=8, sigma_luma=8, sigma_chroma=8)
    before, after = [], []
    for seed, category in enumerate(CATEGORIES):
        scene = render_scene(seed, [category], 64, (28, 52))
        truth = scene.objects[0].mask
        image = np.asarray(Image.fromarray(scene.image).filter(ImageFilter.GaussianBlur(0.8)))
        coarse = np.roll(truth, (3, -2), (0, 1)).reshape(16, 4, 16, 4).mean((1, 3)) > 0.35
        coarse = coarse.repeat(4, 0).repeat(4, 1)
        before.append(iou(coarse, truth))
        after.append(iou(refine(coarse, image, small), truth))
    assert np.mean(after) > np.mean(before) + 0.15
    assert np.mean(np.array(after) > np.array(before)) > 0.9
