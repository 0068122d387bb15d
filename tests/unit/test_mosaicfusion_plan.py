"""What MosaicFusion draws, and that it depends on nothing but the run's seed."""

import json
from collections import Counter, defaultdict

import pytest

from gen4det.core.errors import InputError
from gen4det.engines.mosaicfusion.plan import draw_canvases, plan_manifest
from gen4det.engines.mosaicfusion.settings import Settings
from tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
NAMES = ["cup", "fish", "table", "cap_(headwear)", "spatula", "Christmas_tree"]
GROUPS = "rrcffr"
DATA = {
    "images": [],
    "annotations": [],
    "categories": [
        {"id": 10 + i, "name": name, "def": f"a {name} used for the photo", "frequency": group}
        for i, (name, group) in enumerate(zip(NAMES, GROUPS, strict=True))
    ],
}


def plan(data=DATA, run_seed=0, **changes):
    return plan_manifest(data, Settings(**changes), run_seed, TOKENIZER, cell=8)


def content(row) -> dict:
    """A row without its place in the manifest."""
    return {key: value for key, value in row.items() if key not in ("index", "batch")}


def by_image(rows) -> dict:
    return {(row["main_category_id"], row["number"]): content(row) for row in rows}


def test_every_main_category_is_drawn_and_lies_on_its_canvas():
    rows = plan()
    assert Counter(row["main_category_id"] for row in rows) == {10: 25, 11: 25, 15: 25}
    places = Counter()
    for row in rows:
        drawn = [region["category_id"] for region in row["regions"]]
        assert row["main_category_id"] in drawn and len(drawn) == 4
        places[drawn.index(row["main_category_id"])] += 1
    assert set(places) == {0, 1, 2, 3}


def test_rows_are_json_with_prompt_tokens_and_boxes():
    rows = plan()
    assert json.loads(json.dumps(rows)) == rows
    row = rows[0]
    assert (row["height"], row["width"]) == (768, 1024)
    for region in row["regions"]:
        category = DATA["categories"][region["category_id"] - 10]
        name = category["name"].replace("_", " ")
        definition = category["def"]
        assert region["prompt"] == f"a photo of a single {name}, {definition}"
        ids = TOKENIZER(region["prompt"]).input_ids
        spelled = TOKENIZER.decode([ids[position] for position in region["tokens"]]).strip()
        assert spelled == name.partition(" (")[0].lower()
        assert len(region["box"]) == len(region["core"]) == 4


def test_an_image_depends_on_seed_category_and_number_only():
    everything = by_image(plan())
    assert everything == by_image(plan())
    fewer = by_image(plan(images_per_category=10))
    assert fewer.items() <= everything.items() and len(fewer) == 30
    reordered = by_image(plan(main_groups=["r", "c"]))
    assert {key: reordered[key] for key in everything} == everything
    other = by_image(plan(run_seed=1))
    assert all(other[key] != everything[key] for key in everything)


def test_every_image_has_its_own_noise():
    seeds = [row["seed"] for row in plan()]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert {row["seed"] for row in plan(random_stream="official")} == set(range(25))


def test_partners_are_uniform_over_their_groups_and_may_repeat():
    settings = Settings(images_per_category=2000)
    canvases = list(draw_canvases([0], range(6), settings, run_seed=3, cell=8))
    drawn = Counter(category for canvas in canvases for category in canvas.categories)
    drawn[0] -= len(canvases)  # once as the main category
    for category in range(6):
        assert abs(drawn[category] - 1000) < 4 * (6000 * 1 / 6 * 5 / 6) ** 0.5  # four standard deviations
    assert any(len(set(canvas.categories)) < 4 for canvas in canvases)


def test_groups_choose_main_categories_and_partners():
    rows = plan(main_groups=["c"], partner_groups=["f"])
    assert {row["main_category_id"] for row in rows} == {12}
    partners = {region["category_id"] for row in rows for region in row["regions"]} - {12}
    assert partners == {13, 14}


def test_number_of_objects_is_drawn_from_the_choices():
    rows = plan(objects=[1, 2, 4])
    counts = Counter(len(row["regions"]) for row in rows)
    assert set(counts) == {1, 2, 4} and min(counts.values()) > 10


def test_batches_share_one_geometry_and_rows_are_numbered_in_order():
    rows = plan(objects=[1, 4], centre_sigma=0.5, batch_size=8)
    assert [row["index"] for row in rows] == list(range(len(rows)))
    batches = defaultdict(list)
    for row in rows:
        batches[row["batch"]].append(row)
    assert list(batches) == list(range(len(batches)))
    for members in batches.values():
        assert len(members) <= 8
        assert len({json.dumps([region["box"] for region in row["regions"]]) for row in members}) == 1
    assert len(batches) == sum(
        -(-count // 8) for count in Counter(len(row["regions"]) for row in rows).values()
    )


def test_canvases_per_geometry_share_a_cut_but_nothing_else():
    rows = plan(objects=[1, 2, 4], canvases_per_geometry=5)
    groups = defaultdict(list)
    for row in rows:
        groups[row["main_category_id"], row["number"] // 5].append(row)
    for members in groups.values():
        assert len(members) == 5
        assert len({json.dumps([region["box"] for region in row["regions"]]) for row in members}) == 1
        assert len({row["seed"] for row in members}) == 5
    free, grouped = by_image(plan()), by_image(plan(canvases_per_geometry=5))
    for key, row in grouped.items():
        drawn, expected = (
            [region["category_id"] for region in found["regions"]] for found in (row, free[key])
        )
        assert drawn == expected


def test_a_data_set_without_the_groups_is_refused():
    with pytest.raises(
        InputError, match="main_groups: no category .* c; set main_groups to groups that it has: r"
    ):
        plan({**DATA, "categories": DATA["categories"][:1]}, main_groups=["c"])
    with pytest.raises(InputError, match="partner_groups: no category"):
        plan({**DATA, "categories": DATA["categories"][:1]}, partner_groups=["f"])


def test_the_official_stream_cannot_share_geometries():
    with pytest.raises(ValueError, match="canvases_per_geometry"):
        Settings(random_stream="official", canvases_per_geometry=2)
