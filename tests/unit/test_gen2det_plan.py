"""Which images are painted anew, which of their boxes, in which order. Acceptance checks 2 and 4."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen4det.core.errors import InputError
from gen4det.data.manifests import check_rows
from gen4det.diffusion.latent_boxes import latent_mask
from gen4det.engines.gen2det.compositing import paint_weights, paste, resized
from gen4det.engines.gen2det.plan import choose_references, plan_manifest, plan_objects, used_categories
from gen4det.engines.gen2det.prompts import fit_prompts, prompt_of, warn_of_unknown_names
from gen4det.engines.gen2det.settings import Settings
from tiny_models import tiny_tokenizer

NAMES = {1: "tennis cup", 2: "fish", 3: "cap (headwear)"}


def data_of(*images: list[tuple], size=(640, 480), crowd=()) -> dict:
    """Images given as lists of (category, box)."""
    annotations = [
        {"image_id": 10 + number, "category_id": category, "bbox": box}
        for number, labels in enumerate(images)
        for category, box in labels
    ]
    for number, annotation in enumerate(annotations):
        annotation |= {"id": number, "iscrowd": int(number in crowd)}
    return {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]}
            for i in range(len(images))
        ],
        "annotations": annotations,
        "categories": [
            {"id": 1, "name": "tennis_cup"}, {"id": 2, "name": "fish"}, {"id": 3, "name": "cap_(headwear)"},
        ],
    }  # fmt: skip


BOX = [100, 50, 200, 100]
MANY = data_of(*([(1 if i < 2 else 2, BOX)] for i in range(23)), *([(2, BOX), (3, BOX)] for _ in range(6)))


def plan(data=MANY, run_seed=0, cell=8, **settings) -> list[dict]:
    rows = plan_manifest(data, Settings(**settings), run_seed, cell)
    check_rows(rows)
    return rows


def without(row: dict, *keys: str) -> str:
    return json.dumps({key: value for key, value in row.items() if key not in keys}, sort_keys=True)


# --- rows -----------------------------------------------------------------------------------------


def test_a_row_holds_all_that_is_needed():
    row = plan(data_of([(1, BOX), (3, [0.5, 1, 30, 40]), (1, BOX)]), generations_per_reference=1)[0]
    assert row.pop("seed") >= 0
    assert row == {
        "index": 0, "batch": 0, "number": 0, "reference_image_id": 10, "file_name": "0.jpg",
        "height": 480, "width": 640, "prompt": "tennis cup, cap (headwear)",
        "objects": [
            {"category_id": 1, "bbox": BOX, "role": "painted", "phrase": "tennis cup"},
            {"category_id": 3, "bbox": [0.5, 1, 30, 40], "role": "painted", "phrase": "cap (headwear)"},
            {"category_id": 1, "bbox": BOX, "role": "painted", "phrase": "tennis cup"},
        ],
    }  # fmt: skip


def test_every_reference_is_painted_as_often_as_asked_each_time_with_its_own_seed():
    rows = plan(generations_per_reference=3)
    assert Counter(row["reference_image_id"] for row in rows) == {image["id"]: 3 for image in MANY["images"]}
    assert len({row["seed"] for row in rows}) == len(rows)
    assert {row["number"] for row in rows} == {0, 1, 2}
    assert all(count <= 8 for count in Counter(row["batch"] for row in rows).values())
    assert plan(generations_per_reference=3) == rows
    assert not {row["seed"] for row in plan(run_seed=1)} & {row["seed"] for row in rows}


def test_more_generations_only_add_rows():
    few, many = (
        plan(generations_per_reference=2, batch_size=5),
        plan(generations_per_reference=4, batch_size=5),
    )
    assert many[: len(few)] == few
    assert many[len(few)]["batch"] == few[-1]["batch"] + 1


@pytest.mark.parametrize("order", ["random", "rare-first"])
def test_more_references_keep_the_images_of_the_fewer(order):
    few, many = (plan(references=count, reference_order=order) for count in (4, 20))
    kept = {(row["reference_image_id"], row["number"]): without(row, "index", "batch") for row in many}
    for row in few:
        assert kept[row["reference_image_id"], row["number"]] == without(row, "index", "batch")
    assert len(few) == 8 and len(many) == 40


def test_rare_first_takes_images_of_rare_categories_first():
    """Categories 1, 2, 3 are in 2, 27 and 6 images."""
    chosen = choose_references(MANY, Settings(reference_order="rare-first", references=9), 0)
    rank = [min(image["id"] - 10, 23) for image in chosen]
    assert set(rank[:2]) == {0, 1} and rank[2:8] == [23] * 6 and 2 <= rank[8] < 23
    at_random = choose_references(MANY, Settings(references=9), 0)
    assert [image["id"] for image in at_random] != [image["id"] for image in chosen]
    assert at_random != choose_references(MANY, Settings(references=9), 1)
    assert [i["id"] for i in choose_references(MANY, Settings(), 0)] != sorted(
        i["id"] for i in MANY["images"]
    )


def test_images_without_a_box_to_paint_are_no_references():
    data = data_of([], [(1, BOX)], [(2, BOX)], crowd=[1])
    assert {row["reference_image_id"] for row in plan(data)} == {11}
    with pytest.raises(InputError, match="^gen2det: no training image has a box to paint$"):
        plan(data_of([], [(1, BOX)], crowd=[0]))


def test_a_reference_smaller_than_a_latent_cell_is_refused():
    data = data_of([(1, [0, 0, 5, 5])], size=(300, 7))
    with pytest.raises(InputError, match=r"training image 10 \(0.jpg\): 300 x 7 px; expected .* 8 x 8 px$"):
        plan(data)
    assert plan(data, cell=4)


def test_sizes_that_do_not_fit_the_model_are_refused():
    with pytest.raises(
        InputError, match="^gen2det: size.width: 516 px is not a multiple of this model's 8 px$"
    ):
        plan(size={"height": 512, "width": 516})


# --- check 2: more than thirty boxes, crowds --------------------------------------------------------


def objects_of(boxes, crowd=(), image=(480, 640), **settings):
    annotations = [
        {"category_id": 1 + i % 3, "bbox": box, "iscrowd": int(i in crowd)} for i, box in enumerate(boxes)
    ]
    holders = {1: 30, 2: 4, 3: 200}
    return plan_objects(annotations, image, (64, 64), Settings(**settings), NAMES, holders)


def test_check_2_exactly_the_thirty_largest_are_painted_and_order_stays():
    rng = np.random.default_rng(0)
    boxes = [[*rng.uniform(0, 400, 2).tolist(), *rng.uniform(2, 60, 2).tolist()] for _ in range(47)]
    planned = objects_of(boxes)
    assert [entry["bbox"] for entry in planned] == boxes
    assert [entry["category_id"] for entry in planned] == [1 + i % 3 for i in range(47)]
    areas = np.array([w * h for _, _, w, h in boxes])
    painted = {i for i, entry in enumerate(planned) if entry["role"] == "painted"}
    assert painted == set(np.argsort(-areas)[:30].tolist())
    assert all(("phrase" in entry) == (entry["role"] == "painted") for entry in planned)
    assert sum(entry["role"] == "painted" for entry in objects_of(boxes, max_boxes=5)) == 5


def test_boxes_beyond_the_limit_are_kept_unless_painted_over():
    large = [80, 60, 160, 120]  # on cells of 10 x 7.5 px
    half, less, more, outside = [40, 75, 80, 15], [39, 75, 80, 15], [41, 75, 80, 15], [400, 300, 20, 20]
    planned = objects_of([outside, more, large, half, less], max_boxes=1)
    assert [entry["role"] for entry in planned] == ["kept", "covered", "painted", "kept", "kept"]
    assert [e["role"] for e in objects_of([outside, more, large], max_boxes=1, max_covered=1.0)] == [
        "kept", "kept", "painted",
    ]  # fmt: skip


def test_the_rarest_boxes_may_be_painted_first():
    large, rare, small_rare, common = [0, 0, 90, 90], [200, 0, 40, 40], [400, 0, 20, 20], [200, 200, 60, 60]
    boxes = [common, rare, large, common, small_rare]  # of the categories 1, 2, 3, 1, 2
    for count, painted in ((1, {1}), (2, {1, 4}), (4, {0, 1, 3, 4})):
        planned = objects_of(boxes, max_boxes=count, box_order="rare-first")
        assert {i for i, entry in enumerate(planned) if entry["role"] == "painted"} == painted


def test_crowds_are_never_painted():
    planned = objects_of([[0, 0, 640, 480], [10, 10, 50, 50]], crowd=[0], max_boxes=1)
    assert [entry["role"] for entry in planned] == ["crowd", "painted"]


def test_regions_to_ignore_are_treated_as_crowds():
    data = data_of([(1, BOX)], [(2, BOX), (3, [10, 10, 50, 50])])
    for annotation in data["annotations"][:2]:
        annotation["ignore"] = 1
    (row,) = plan(data, generations_per_reference=1)
    assert row["reference_image_id"] == 11
    assert [entry["role"] for entry in row["objects"]] == ["crowd", "painted"]
    assert row["prompt"] == "cap (headwear)"


# --- prompts ----------------------------------------------------------------------------------------


def test_prompts_name_every_category_once():
    assert (
        prompt_of(["cup", "fish", "cup"], "a photo of {names} on the table")
        == "a photo of cup, fish on the table"
    )
    for bad in ("{name}", "{names} {names}", "cup"):
        with pytest.raises(ValueError, match="prompt: must contain"):
            Settings(prompt=bad)


def test_names_without_a_known_word_are_warned_of_once(caplog):
    tokenizer = tiny_tokenizer()
    names = ["fish", "spatula", "qqq", "x", "qqq_cup", "猫", "é", "zq zq", "Christmas tree"]
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_names([{"name": name} for name in names], tokenizer)
    (record,) = caplog.records
    assert record.message.endswith("in the model's vocabulary: 'qqq', '猫', 'é', 'zq zq'")
    caplog.clear()
    warn_of_unknown_names([{"name": "fish"}], tokenizer)
    assert not caplog.records
    rows = plan(data_of([(3, BOX)], [(1, BOX)]))
    assert [category["id"] for category in used_categories(MANY, rows)] == [1, 3]


def test_prompts_longer_than_the_window_lose_whole_phrases_from_the_end(caplog):
    tokenizer, names = tiny_tokenizer(), {1: "q" * 30, 2: "z" * 30, 3: "x" * 30}  # a token for each letter
    data = data_of([(1, BOX)], [(1, BOX), (3, BOX), (2, BOX), (3, BOX)])
    data["categories"] = [{"id": key, "name": name} for key, name in names.items()]
    rows = plan(data)
    template = "{names}"
    with caplog.at_level(logging.WARNING):
        fitted = fit_prompts(rows, template, tokenizer)
    (record,) = caplog.records
    assert "the prompts of 1 of 2 real images are longer than the 75 tokens" in record.message
    assert "1 of their 3 phrases are left out" in record.message
    for row, new in zip(rows, fitted, strict=True):
        whole = row["reference_image_id"] == 10
        assert new["prompt"] == (names[1] if whole else f"{names[1]}, {names[3]}")
        assert without(new, "prompt") == without(row, "prompt"), "every box is still painted"
        read = tokenizer(new["prompt"], truncation=True, max_length=77).input_ids
        assert read == tokenizer(new["prompt"], verbose=False).input_ids

    # The window counts in tokens of the whole prompt, its template included; what fits is untouched.
    for words, left in ((13, 2), (14, 2), (15, 1)):
        words = " ".join("q" * words)
        kept = fit_prompts(plan(data, prompt=f"{words} {{names}}"), f"{words} {{names}}", tokenizer)[1]
        assert kept["prompt"].count(", ") == left - 1
    caplog.clear()
    assert fit_prompts(plan(), template, tokenizer) == plan()
    assert not caplog.records


def test_a_single_phrase_that_is_too_long_stays(caplog):
    data = data_of([(1, BOX), (2, BOX)])
    data["categories"][0]["name"] = "q" * 100
    with caplog.at_level(logging.WARNING):
        fitted = fit_prompts(plan(data), "{names}", tiny_tokenizer())
    assert {row["prompt"] for row in fitted} == {"q" * 100}
    assert "1 of their 2 phrases" in caplog.text


# --- compositing ------------------------------------------------------------------------------------


def test_weights_rise_inwards_and_the_image_border_is_none():
    mask = np.ones((8, 8))
    mask[2:6, 2:6] = 0
    weights = paint_weights(mask, 64, 64, 3)
    np.testing.assert_allclose(weights[32, 14:22], [0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_array_equal(weights == 0, np.kron(mask, np.ones((8, 8))) == 1)
    np.testing.assert_array_equal(weights, weights.T)
    mask[:] = 1
    mask[:2] = 0
    weights = paint_weights(mask, 64, 64, 3)
    assert (weights[0] == 1).all() and (weights[15] == 0.25).all() and (weights[16:] == 0).all()
    assert set(np.unique(paint_weights(mask, 50, 30, 0))) == {0, 1}
    assert (paint_weights(np.zeros((8, 8)), 20, 20, 4) == 1).all()


@given(st.integers(40, 300), st.integers(40, 300), st.data())
def test_boxes_lie_inside_what_is_painted(height, width, data):
    x, y = data.draw(st.integers(0, width - 4)), data.draw(st.integers(0, height - 4))
    w, h = data.draw(st.integers(3, width - x)), data.draw(st.integers(3, height - y))
    weights = paint_weights(latent_mask([[x, y, w, h]], (height, width), (16, 16)), height, width, 0)
    assert (weights[y : y + h, x : x + w] == 1).all()
    reach = (height / 16 + 1, width / 16 + 1)  # no further than one cell
    rows, columns = np.nonzero(weights)
    assert rows.min() > y - reach[0] and rows.max() < y + h + reach[0]
    assert columns.min() > x - reach[1] and columns.max() < x + w + reach[1]


@given(st.integers(100, 600), st.integers(100, 600), st.data())
def test_check_4_rectangles_survive_resizing_within_a_pixel(height, width, data):
    """Whole image to the model's size and back, as if the model had painted exactly what was there."""
    x, y = data.draw(st.integers(0, width - 41)), data.draw(st.integers(0, height - 41))
    w, h = data.draw(st.integers(40, width - x)), data.draw(st.integers(40, height - y))
    image = np.full((height, width, 3), (20, 30, 40), np.uint8)
    image[y : y + h, x : x + w] = (220, 60, 90)
    back = resized(resized(image, 512, 512), height, width)
    assert back.shape == image.shape
    rows, columns = np.nonzero(back[..., 0] > 120)
    assert abs(rows.min() - y) <= 1 and abs(rows.max() + 1 - y - h) <= 1
    assert abs(columns.min() - x) <= 1 and abs(columns.max() + 1 - x - w) <= 1
    assert resized(image, height, width) is image


def test_pasting_leaves_the_original_where_the_weight_is_zero():
    rng = np.random.default_rng(0)
    original, painted = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    weights = np.tile(np.array([0, 0.25, 0.5, 1], np.float32), (32, 8))
    result = paste(original, painted, weights)
    np.testing.assert_array_equal(result[:, ::4], original[:, ::4])
    np.testing.assert_array_equal(result[:, 3::4], painted[:, 3::4])
    mixed = (original[:, 2::4].astype(float) + painted[:, 2::4]) / 2
    assert np.abs(result[:, 2::4] - mixed).max() <= 0.5
