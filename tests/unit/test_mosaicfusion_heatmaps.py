"""Attention maps become a coarse mask, or a reported rejection."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy import ndimage

from gen4det.engines.mosaicfusion import heatmaps
from gen4det.engines.mosaicfusion.heatmaps import HeatMapError, aggregate, binarise, otsu_threshold
from gen4det.engines.mosaicfusion.mask_settings import MaskSettings

SIZE = (384, 512)
MODES = ("official", "paper")


def blob(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A bright disc at (40%, 55%) on a weak, noisy ground, float32 (height, width)."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((y + 0.5) / height - 0.4, (x + 0.5) / width - 0.55)
    noise = np.random.default_rng(seed).uniform(0, 0.02, (height, width))
    return (0.05 + 0.5 / (1 + np.exp((distance - 0.22) * 40)) + noise).astype(np.float32)


def heat() -> dict[int, np.ndarray]:
    return {1: 0.4 * blob(48, 64), 2: 0.9 * blob(24, 32, 1), 4: 0.6 * blob(12, 16, 2)}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def between_class_variance(image: np.ndarray, threshold: int) -> float:
    above = image > threshold
    if above.all() or not above.any():
        return 0.0
    return above.mean() * (1 - above.mean()) * (image[above].mean() - image[~above].mean()) ** 2


# --- acceptance check 8 -----------------------------------------------------------------------------


def test_both_aggregations_recover_a_blob_and_agree():
    masks = [binarise(aggregate(heat(), SIZE, mode), MaskSettings()) for mode in MODES]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = np.hypot((y + 0.5) / SIZE[0] - 0.4, (x + 0.5) / SIZE[1] - 0.55) < 0.22
    assert iou(*masks) >= 0.9
    assert all(iou(mask, disc) >= 0.9 for mask in masks)


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=24)))
@settings(max_examples=150, deadline=None)
def test_otsu_equals_opencv_on_the_same_map(image):
    opencv, _ = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    ours = otsu_threshold(image)
    if ours != int(opencv):  # only where two thresholds are exactly as good
        assert ours == 0 or between_class_variance(image, ours) == pytest.approx(
            between_class_variance(image, int(opencv)), rel=1e-9
        )


def test_otsu_mask_equals_opencvs_on_attention():
    for mode in MODES:
        heat_map = aggregate(heat(), SIZE, mode)
        _, mask = cv2.threshold(heat_map, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        assert np.array_equal(binarise(heat_map, MaskSettings()), mask > 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((6, 8)), heatmaps.FLAT),
        (np.full((6, 8), 0.013), heatmaps.FLAT),
        (np.full((6, 8), np.nan), heatmaps.NOT_FINITE),
        (np.where(np.eye(6, 8) > 0, np.inf, 0.1), heatmaps.NOT_FINITE),
    ],
)
def test_maps_without_contrast_are_rejected_with_a_reason(mode, bad, reason):
    maps = {1: bad.repeat(2, 0).repeat(2, 1), 2: bad}
    with pytest.raises(HeatMapError, match=reason), np.errstate(all="raise"):
        aggregate(maps, (48, 64), mode)


# --- details ----------------------------------------------------------------------------------------


def as_released(heat: dict[int, np.ndarray], dtype: type = np.float64) -> np.ndarray:
    """The released code's arithmetic: RGB pictures, from coarse to fine, their mean in double precision."""
    total = 0
    for key in sorted(heat, reverse=True):
        coarse = (heat[key] / heat[key].max() * 255).astype(np.uint8)
        picture = Image.fromarray(np.stack([coarse] * 3, axis=-1)).resize((SIZE[1], SIZE[0]))
        total = total + np.asarray(picture)[..., 0].astype(dtype) / 255
    mean = total / len(heat)
    return (255 * mean / mean.max()).astype(np.uint8)


def test_official_aggregation_is_the_released_codes_arithmetic():
    assert np.array_equal(aggregate(heat(), SIZE, "official"), as_released(heat()))


def test_official_aggregation_keeps_double_precision_until_it_has_8_bits():
    """Single precision puts pixels whose mean is just a whole level on the level below."""
    maps = {1: blob(48, 64, 1), 2: blob(24, 32, 2)}
    ours = aggregate(maps, SIZE, "official")
    assert np.array_equal(ours, as_released(maps))
    assert (ours != as_released(maps, np.float32)).sum() > 1000


def test_official_gives_every_resolution_the_same_peak_and_paper_does_not():
    weak = {**heat(), 1: heat()[1] * 1e-3}
    official = [aggregate(maps, SIZE, "official").astype(int) for maps in (heat(), weak)]
    paper = [aggregate(maps, SIZE, "paper").astype(int) for maps in (heat(), weak)]
    assert np.abs(official[0] - official[1]).max() <= 1
    assert np.abs(paper[0] - paper[1]).max() > 2


def test_one_silent_resolution_does_not_spoil_the_others():
    maps = {**heat(), 4: np.zeros((12, 16), np.float32)}
    for mode in MODES:
        assert binarise(aggregate(maps, SIZE, mode), MaskSettings()).any()


def test_paper_uses_the_full_range():
    heat_map = aggregate(heat(), SIZE, "paper")
    assert heat_map.min() == 0 and heat_map.max() == 255


def test_simple_threshold_is_a_share_of_the_maximum():
    heat_map = np.array([[0, 76, 77, 255]], dtype=np.uint8)
    mask = binarise(heat_map, MaskSettings(threshold="simple"))
    assert mask.tolist() == [[False, False, True, True]]


def test_order_of_resolutions_does_not_matter():
    backwards = dict(reversed(heat().items()))
    assert all(
        np.array_equal(aggregate(heat(), SIZE, mode), aggregate(backwards, SIZE, mode)) for mode in MODES
    )


# --- rings ----------------------------------------------------------------------------------------------


def lowest_way_out(values: np.ndarray) -> np.ndarray:
    """By brute force: for each cell the smallest level at which some way to the border stays below it."""
    out = np.empty_like(values)
    for y, x in np.ndindex(values.shape):
        for level in np.unique(values):
            labels, _ = ndimage.label(values <= level)
            border = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
            if labels[y, x] in border:
                out[y, x] = level
                break
    return out


@given(arrays.arrays(np.float32, (6, 7), elements=st.sampled_from([0, 0.25, 0.5, 1])))
@settings(max_examples=60, deadline=None)
def test_basins_fill_to_the_lowest_way_out(values):
    assert np.array_equal(heatmaps.filled(values), lowest_way_out(values))


def test_a_ring_of_attention_is_filled_and_then_covers_the_object():
    """What coarse layers see of a snowman is its outline; half the ring covers its hat alone."""
    y, x = np.mgrid[:24, :24]
    distance = np.hypot(y - 12, x - 12)
    ring = (0.1 + 0.9 * np.exp(-(((distance - 7) / 1.5) ** 2))).astype(np.float32)
    disc = np.hypot(*(np.mgrid[:96, :96] - 47.5)) < 8 * 4
    covered = {
        fill: binarise(aggregate({1: ring}, (96, 96), "paper", fill_rings=fill), MaskSettings())
        for fill in (False, True)
    }
    assert iou(covered[False], disc) < 0.6
    assert iou(covered[True], disc) > 0.85


def test_filling_leaves_a_blob_as_it_is():
    for mode in MODES:
        plain, full = (aggregate(heat(), SIZE, mode, fill_rings=fill) for fill in (False, True))
        assert iou(binarise(plain, MaskSettings()), binarise(full, MaskSettings())) > 0.98


def test_maps_that_are_not_finite_are_rejected_before_they_are_filled():
    maps = {1: np.full((4, 4), np.nan, np.float32)}
    with pytest.raises(HeatMapError, match="not finite"):
        aggregate(maps, SIZE, "paper", fill_rings=True)
