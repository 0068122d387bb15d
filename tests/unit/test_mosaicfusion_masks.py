"""A region yields exactly one component, or a reason; masks land on the canvas where the region lies."""

import pickle

import numpy as np
import pytest

from gen4det.data.masks import area_of_rle, rle_to_mask
from gen4det.engines.mosaicfusion import heatmaps, region_masks
from gen4det.engines.mosaicfusion.mask_settings import ComponentSettings, MaskSettings
from gen4det.engines.mosaicfusion.region_masks import place, region_mask, single_component

SETTINGS = ComponentSettings()


def rectangles(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (100, 100)) -> np.ndarray:
    """Mask with filled rectangles (y, x, height, width)."""
    mask = np.zeros(size, bool)
    for y, x, height, width in boxes:
        mask[y : y + height, x : x + width] = True
    return mask


# --- acceptance check 9: filter -----------------------------------------------------------------------


def test_one_blob_is_kept():
    blob = rectangles((20, 30, 40, 40))
    found = single_component(blob, SETTINGS)
    assert found.reason is None and np.array_equal(found.mask, blob)


def test_speck_below_the_floor_is_erased():
    found = single_component(rectangles((20, 30, 40, 40), (90, 90, 5, 5)), SETTINGS)
    assert np.array_equal(found.mask, rectangles((20, 30, 40, 40)))


def test_two_squares_that_touch_at_a_corner():
    """Two objects with 4-connected components, one with 8-connected ones."""
    squares = rectangles((10, 10, 30, 30), (40, 40, 30, 30))
    assert single_component(squares, SETTINGS).reason == region_masks.MULTIPLE
    found = single_component(squares, ComponentSettings(connectivity=8))
    assert found.reason is None and np.array_equal(found.mask, squares)


def test_a_speck_at_a_corner_belongs_to_the_object_or_not():
    mask = rectangles((0, 0, 30, 30), (30, 30, 5, 5))
    assert single_component(mask, SETTINGS).mask.sum() == 900
    assert single_component(mask, ComponentSettings(connectivity=8)).mask.sum() == 925


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (rectangles(), region_masks.NONE),
        (rectangles((0, 0, 40, 40), (50, 50, 40, 40)), region_masks.MULTIPLE),
        (rectangles((10, 10, 22, 22)), region_masks.TOO_SMALL),
        (rectangles((0, 0, 100, 96)), region_masks.TOO_LARGE),
    ],
)
def test_rejections_are_reported_with_their_reason(mask, reason):
    found = single_component(mask, SETTINGS)
    assert found.mask is None and found.reason == reason


def test_limits_are_shares_of_the_actual_region_and_inclusive():
    for size in ((60, 80), (100, 100), (30, 200)):
        floor = size[0] * size[1] // 20
        mask = np.zeros(size, bool)
        mask.ravel()[:floor] = True  # whole rows from the top: one component
        assert single_component(mask, SETTINGS).reason is None
        mask.ravel()[floor - 1] = False
        assert single_component(mask, SETTINGS).reason == region_masks.TOO_SMALL


def test_official_limits_ignore_the_size_of_the_region():
    official = ComponentSettings(reference="official")
    largest_region, cap, floor = (504, 672), 186_778, 9_830
    mask = np.zeros(largest_region, bool)
    mask.ravel()[:cap] = True
    assert single_component(mask, official).reason is None
    mask.ravel()[cap] = True
    assert single_component(mask, official).reason == region_masks.TOO_LARGE
    assert single_component(mask, SETTINGS).reason is None  # 55% of this region
    mask[:] = False
    mask.ravel()[: floor - 1] = True
    assert single_component(mask, official).reason == region_masks.TOO_SMALL


def test_width_and_height_limits():
    tall = rectangles((0, 40, 100, 20))
    assert single_component(tall, SETTINGS).reason is None
    limits = ComponentSettings(max_height_fraction=0.9)
    assert single_component(tall, limits).reason == region_masks.TOO_LARGE
    limits = ComponentSettings(min_width_fraction=0.25)
    assert single_component(tall, limits).reason == region_masks.TOO_SMALL


# --- the whole way ------------------------------------------------------------------------------------


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Truth, image and attention of a red disc on blue; attention is coarse and a little off."""
    y, x = np.mgrid[:height, :width]
    truth = np.hypot(y - 50, x - 60) < 27
    rgb = np.where(truth[..., None], (200, 60, 50), (60, 120, 180)).astype(np.uint8)
    off = np.hypot(y - 53, x - 57) < 27
    heat = {
        factor: (0.02 + 0.2 * off.reshape(height // n, n, width // n, n).mean((1, 3))).astype(np.float32)
        for factor, n in ((1, 8), (2, 16))
    }
    return truth, rgb, heat


@pytest.mark.parametrize("aggregation", ["official", "paper"])
def test_region_mask_recovers_the_object(aggregation):
    truth, rgb, heat = scene()
    found = region_mask(heat, rgb, MaskSettings(aggregation=aggregation))
    assert found.reason is None
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.98


@pytest.mark.parametrize(
    ("value", "reason"), [(0.0, heatmaps.FLAT), (0.3, heatmaps.FLAT), (np.nan, heatmaps.NOT_FINITE)]
)
def test_useless_attention_is_a_rejection_and_never_an_exception(value, reason):
    _, rgb, heat = scene()
    useless = {factor: np.full_like(values, value) for factor, values in heat.items()}
    with np.errstate(all="raise"):
        found = region_mask(useless, rgb, MaskSettings())
    assert found.mask is None and found.reason == reason


def test_everything_a_worker_process_needs_can_be_pickled():
    _, rgb, heat = scene()
    function, arguments = pickle.loads(pickle.dumps((region_mask, (heat, rgb, MaskSettings()))))
    result = pickle.loads(pickle.dumps(function(*arguments)))
    assert np.array_equal(result.mask, region_mask(heat, rgb, MaskSettings()).mask)


# --- onto the canvas ----------------------------------------------------------------------------------


def test_mask_is_placed_at_the_diffusion_rectangle():
    mask = rectangles((2, 3, 4, 5), size=(20, 30))
    rle, box = place(mask, (50, 40, 30, 20), (96, 128))
    whole = rle_to_mask(rle)
    assert rle["size"] == [96, 128]
    assert box == [53.0, 42.0, 5.0, 4.0]
    assert area_of_rle(rle) == 20
    assert np.array_equal(whole[40:60, 50:80], mask) and whole.sum() == mask.sum()


def test_objects_of_neighbouring_regions_may_overlap_in_the_shared_band():
    left, _ = place(np.ones((20, 30), bool), (0, 0, 30, 20), (20, 50))
    right, _ = place(np.ones((20, 30), bool), (20, 0, 30, 20), (20, 50))
    assert (rle_to_mask(left) & rle_to_mask(right)).sum() == 20 * 10


@pytest.mark.parametrize("rectangle", [(0, 0, 31, 20), (-1, 0, 30, 20), (99, 0, 30, 20), (0, 77, 30, 20)])
def test_rectangle_must_fit_mask_and_canvas(rectangle):
    with pytest.raises(ValueError, match="does not fit"):
        place(np.ones((20, 30), bool), rectangle, (96, 128))
