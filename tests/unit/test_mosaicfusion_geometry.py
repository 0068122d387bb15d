"""Geometry of MosaicFusion's canvases: acceptance check 1."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.engines.mosaicfusion.geometry import Box, Layout, draw_layout
from gen4det.engines.mosaicfusion.plan import draw_canvases
from gen4det.engines.mosaicfusion.settings import Settings

DRAWS = 10_000


def assert_sound(layout: Layout, settings: Settings, cell: int) -> None:
    """Whole cells inside the canvas; cores tile it; regions are cores plus half the overlap at cuts only."""
    covered = 0
    for core, region in zip(layout.cores, layout.regions, strict=True):
        for box in (core, region):
            assert all(length % cell == 0 for length in box)
            assert box.x >= 0 and box.y >= 0 and box.width > 0 and box.height > 0
            assert box.x + box.width <= layout.width and box.y + box.height <= layout.height
        covered += core.width * core.height
        margins = (
            (core.x - region.x, core.x > 0, settings.overlap_width),
            (core.y - region.y, core.y > 0, settings.overlap_height),
            (
                region.x + region.width - core.x - core.width,
                core.x + core.width < layout.width,
                settings.overlap_width,
            ),
            (
                region.y + region.height - core.y - core.height,
                core.y + core.height < layout.height,
                settings.overlap_height,
            ),
        )
        for margin, at_cut, overlap in margins:
            assert margin == (overlap // 2 if at_cut else 0)
    assert covered == layout.width * layout.height
    for i, a in enumerate(layout.cores):
        for b in layout.cores[:i]:
            apart_x = a.x + a.width <= b.x or b.x + b.width <= a.x
            apart_y = a.y + a.height <= b.y or b.y + b.height <= a.y
            assert apart_x or apart_y


@pytest.mark.parametrize("objects", [1, 2, 4])
def test_check_1_ten_thousand_draws_are_sound(objects):
    settings, draw = Settings(), random.Random(1)
    layouts = {draw_layout(draw, objects, settings, 8) for _ in range(DRAWS)}
    for layout in layouts:
        assert len(layout.regions) == objects
        assert_sound(layout, settings, 8)


def test_a_centre_near_the_border_of_a_tiny_canvas_leaves_every_region_a_cell():
    sizes = dict(region_height=8, region_width=8, overlap_height=0, overlap_width=0)
    settings, draw = Settings(centre_sigma=0.01, **sizes), random.Random(1)
    for layout in {draw_layout(draw, 4, settings, 8) for _ in range(200)}:
        assert_sound(layout, settings, 8)


def test_check_1_range_of_centres_and_regions():
    settings, draw = Settings(), random.Random(2)
    layouts = [draw_layout(draw, 4, settings, 8) for _ in range(DRAWS)]
    centres_x = {layout.cores[0].width for layout in layouts}
    centres_y = {layout.cores[0].height for layout in layouts}
    assert centres_x == set(range(384, 640, 8))
    assert centres_y == set(range(288, 480, 8))
    heights = {region.height for layout in layouts for region in layout.regions}
    widths = {region.width for layout in layouts for region in layout.regions}
    assert (min(heights), min(widths)) == (312, 416)
    assert (max(heights), max(widths)) == (504, 672)


def test_check_1_the_official_random_stream():
    settings = Settings(random_stream="official", images_per_category=3)
    main = -1
    canvases = list(draw_canvases([main], range(1203), settings, run_seed=0, cell=8))
    centres = [(c.layout.cores[0].width, c.layout.cores[0].height) for c in canvases]
    assert centres == [(624, 352), (632, 384), (472, 344)]
    assert [c.categories for c in canvases] == [
        (main, 82, 861, 530),
        (285, 577, main, 1033),
        (151, main, 635, 202),
    ]
    assert [c.seed for c in canvases] == [0, 1, 2]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ((2,), [
            ((861, -1), 768, 472), ((-1, 829), 768, 352), ((1033, -1), 768, 312),
            ((513, -1), 768, 304), ((-1, 676), 384, 472), ((-1, 418), 768, 448),
        ]),
        ((1, 2, 4), [
            ((861, -1), 768, 472), ((-1, 829), 768, 352), ((-1,), 384, None),
            ((286, 285, 577, -1), 768, (632, 384)), ((202, 300, 635, -1), 768, (504, 304)),
            ((647, -1), 768, 368), ((127, 533, 1123, -1), 768, (560, 432)),
            ((-1, 682, 1010, 2), 768, (560, 296)),
        ]),
    ],
)  # fmt: skip
def test_the_official_stream_jitters_the_cut_of_two(objects, expected):
    """Drawn by hand from Python's generator: choice of N, partners, shuffle, coin, cut; then the next image.

    Per image: categories (-1 the main one), height of the canvas, where it is cut.
    """
    settings = Settings(random_stream="official", objects=objects, images_per_category=len(expected))
    found = []
    for canvas in draw_canvases([-1], range(1203), settings, run_seed=0, cell=8):
        layout, first = canvas.layout, canvas.layout.cores[0]
        assert_sound(layout, settings, 8)
        cut = {1: None, 2: first.height if layout.height == 768 else first.width}
        found.append(
            (canvas.categories, layout.height, cut.get(len(layout.cores), (first.width, first.height)))
        )
    assert found == expected


def test_two_objects_lie_side_by_side_or_one_above_the_other():
    settings, draw = Settings(), random.Random(3)
    layouts = {draw_layout(draw, 2, settings, 8) for _ in range(64)}
    assert {(layout.height, layout.width) for layout in layouts} == {(384, 1024), (768, 512)}
    wide = next(layout for layout in layouts if layout.width == 1024)
    assert wide.regions == (Box(0, 0, 544, 384), Box(480, 0, 544, 384))
    tall = next(layout for layout in layouts if layout.width == 512)
    assert tall.regions == (Box(0, 0, 512, 408), Box(0, 360, 512, 408))


def test_four_regions_are_ordered_row_by_row():
    layout = draw_layout(random.Random(0), 4, Settings(centre_sigma=0.5), 8)
    assert [(core.x, core.y) for core in layout.cores] == [(0, 0), (512, 0), (0, 384), (512, 384)]


@st.composite
def sizes(draw):
    """Settings of any scale that fit a cell."""
    cell = draw(st.sampled_from([4, 8, 16]))
    height, width = (cell * draw(st.integers(2, 40)) for _ in range(2))
    sigma = draw(st.floats(0.1, 0.5))
    overlaps = [2 * cell * draw(st.integers(0, int(2 * sigma * side) // cell)) for side in (height, width)]
    settings = Settings(
        region_height=height,
        region_width=width,
        centre_sigma=sigma,
        overlap_height=overlaps[0],
        overlap_width=overlaps[1],
    )
    return settings, cell


@given(sizes(), st.sampled_from([1, 2, 4]), st.integers(0, 2**63 - 1))
def test_any_scale_is_sound(scale, objects, seed):
    settings, cell = scale
    assert_sound(draw_layout(random.Random(seed), objects, settings, cell), settings, cell)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"region_height": 380}, "region_height"), ({"region_width": 509}, "region_width"),
     ({"overlap_height": 24}, "overlap_height"), ({"overlap_width": 40}, "overlap_width")],
)  # fmt: skip
def test_lengths_off_the_latent_grid_are_refused(changes, named):
    with pytest.raises(InputError, match=f"{named}: .* not a multiple"):
        draw_layout(random.Random(0), 1, Settings(**changes), 8)


def test_an_overlap_larger_than_the_smallest_region_is_refused():
    with pytest.raises(InputError, match="overlap_width: half of it must fit"):
        parse_settings(Settings, {"overlap_width": 1024, "centre_sigma": 0.25}, source="x.yaml")
