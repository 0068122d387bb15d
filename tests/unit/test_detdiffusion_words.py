"""Boxes and attributes as words: bins, vocabulary, prompts. Checks 1 to 3 and 9 of the specification."""

import contextlib
import io
import logging

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from pycocotools.coco import COCO
from transformers import CLIPTokenizer

from gen4det.core.errors import InputError
from gen4det.engines.detdiffusion.layouts import Layout, LayoutObject, mirror, read_layouts, shift
from gen4det.engines.detdiffusion.settings import LayoutSettings, WordSettings
from gen4det.engines.detdiffusion.vocabulary import extend_vocabulary
from gen4det.engines.detdiffusion.words import (
    corners,
    fitting,
    known_locations,
    location,
    location_vectors,
    place,
    prompt,
    require_grid,
)
from tiny_models import tiny_pipeline

FULL = WordSettings()
SMALL = WordSettings(columns=4, rows=3)


def layout(*boxes, size=(100, 200), attribute="easy", name="cup"):
    objects = tuple(LayoutObject(1, name, tuple(box), attribute) for box in boxes)
    return Layout(7, "7.png", *size, objects)


# --- bins -------------------------------------------------------------------------------------------


def test_locations_are_rows_of_256_rounded_half_to_even():
    assert location(0, 0, FULL) == 0 and location(1, 1, FULL) == 65535
    assert location(0.5, 0, FULL) == 128  # 127.5
    assert location(0.25, 0.75, FULL) == round(0.75 * 255) * 256 + round(0.25 * 255)
    rng = np.random.default_rng(0)
    points = rng.random((10_000, 2))
    found = np.array([place(location(x, y, FULL), FULL) for x, y in points])
    assert np.abs(found - points).max() <= 0.5 / 255 + 1e-12


@pytest.mark.parametrize("point", [(-0.01, 0.5), (0.5, 1.01), (float("nan"), 0)])
def test_a_point_outside_of_the_image_is_refused(point):
    with pytest.raises(InputError, match="outside of the image"):
        location(*point, FULL)


def test_corners_of_a_box_may_miss_the_border_by_rounding_alone():
    assert corners((0, 0, 200 * (1 + 1e-9), 100), 100, 200, FULL) == (0, 65535)
    with pytest.raises(InputError, match="outside"):
        corners((0, 0, 201, 100), 100, 200, FULL)


def test_vectors_of_locations_are_sines_and_cosines_of_column_and_row():
    table = location_vectors(SMALL, 8)
    assert table.shape == (12, 8) and table.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 2, rtol=1e-6)  # the root of 8 / 2
    for number in range(12):
        row, column = divmod(number, 4)
        half = [[np.sin(at), np.sin(at / 100), np.cos(at), np.cos(at / 100)] for at in (column, row)]
        np.testing.assert_allclose(table[number], np.concatenate(half), atol=1e-6)
    scaled = location_vectors(SMALL.model_copy(update={"init_norm": 0.4}), 8)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 0.4, rtol=1e-6)
    with pytest.raises(InputError, match="multiple of 4"):
        location_vectors(SMALL, 6)


# --- vocabulary -------------------------------------------------------------------------------------


def test_new_words_are_one_token_each_old_vectors_keep_their_bytes_and_plain_diffusers_reads_them(tmp_path):
    pipeline = tiny_pipeline(layers=1)
    before = pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    spelled = pipeline.tokenizer("easy", add_special_tokens=False).input_ids
    added = extend_vocabulary(pipeline, SMALL, attributes=True)
    assert added == [*(f"<l{number}>" for number in range(12)), "[easy]", "[hard]"]
    pipeline.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    table = loaded.text_encoder.get_input_embeddings().weight.detach()
    assert torch.equal(table[: len(before)], before)
    ids = [loaded.tokenizer(word, add_special_tokens=False).input_ids for word in added]
    assert all(len(found) == 1 for found in ids) and len({found[0] for found in ids}) == 14
    places = [found[0] for found in ids]
    np.testing.assert_array_equal(table[places[:12]].numpy(), location_vectors(SMALL, 16))
    torch.testing.assert_close(table[places[12]], before[spelled].mean(0))
    assert not torch.equal(table[places[12]], table[places[13]])
    text = loaded.tokenizer("cup <l3> <l11> [hard]", add_special_tokens=False).input_ids
    assert text[-3:] == [places[3], places[11], places[13]]


def test_a_grid_that_does_not_fit_the_checkpoints_words_is_refused(tmp_path):
    pipeline = tiny_pipeline(layers=1)
    extend_vocabulary(pipeline, SMALL, attributes=False)
    assert known_locations(pipeline.tokenizer) == 12
    assert extend_vocabulary(pipeline, SMALL, attributes=True) == [
        "[easy]",
        "[hard]",
    ]  # it goes on from there
    other = WordSettings(columns=5, rows=3)
    with pytest.raises(InputError, match="12 locations.*3 x 5 = 15"):
        extend_vocabulary(pipeline, other, attributes=True)
    with pytest.raises(InputError, match="somewhere: "):
        require_grid(pipeline.tokenizer, other, where="somewhere")


# --- prompts ----------------------------------------------------------------------------------------


def test_prompts_name_class_upper_left_lower_right_and_attribute():
    one = layout([50, 25, 100, 50])
    assert prompt(one, FULL) == "An image with cup <l16448> <l49087> [easy]"
    three = layout(
        [0, 0, 200, 100], [100, 0, 100, 100], [0, 50, 20, 50], attribute=None, name="traffic light"
    )
    assert prompt(three, SMALL) == (
        "An image with traffic light <l0> <l11> traffic light <l2> <l11> traffic light <l4> <l8>"
    )


def test_a_mirrored_layout_has_the_mirrored_bins_and_the_same_attributes():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, y = rng.integers(0, 128, 2)
        w, h = rng.integers(20, 128, 2)
        original = layout([x, y, w, h], size=(256, 256), attribute="hard")
        flipped = mirror(original)
        assert flipped.objects[0].attribute == "hard"
        columns = [
            [at % 256 for at in corners(it.objects[0].box, 256, 256, FULL)] for it in (original, flipped)
        ]
        mirrored = [255 - column for column in reversed(columns[0])]
        assert np.abs(np.subtract(mirrored, columns[1])).max() <= 1  # ties go to the even bin on both sides


def test_prompts_drop_whole_objects_that_the_text_encoder_would_not_read():
    pipeline = tiny_pipeline(layers=1)
    extend_vocabulary(pipeline, SMALL, attributes=True)
    tokenizer: CLIPTokenizer = pipeline.tokenizer
    eight = layout(*([[0, 0, 50, 50]] * 8))
    text, count = fitting(eight, SMALL, tokenizer)
    assert count == 8 and len(tokenizer(text).input_ids) <= 77
    letters = layout(*([[0, 0, 50, 50]] * 8), name="zqxwvkj" * 2)  # spelled letter by letter
    text, count = fitting(letters, SMALL, tokenizer)
    assert 1 <= count < 8 and text == prompt(letters, SMALL).rsplit(" zqxwvkj", 8 - count)[0]
    assert len(tokenizer(text).input_ids) <= 77
    assert len(tokenizer(text + prompt(letters, SMALL)[len(text) :][:70], verbose=False).input_ids) > 77
    with pytest.raises(InputError, match="image 7.*shorter name"):
        fitting(layout([0, 0, 50, 50], name="zqxwvkj" * 20), SMALL, tokenizer)


# --- layouts ----------------------------------------------------------------------------------------


def annotations(*images):
    """Images of 100 x 100 px; each a list of (category, share of the area in percent, more of the record)."""
    records, labels = [], []
    for number, objects in enumerate(images, start=1):
        records.append({"id": number, "file_name": f"{number}.png", "width": 100, "height": 100})
        for category, percent, more in objects:
            box = [0, 0, 10 * percent, 10]
            labels.append(
                {"id": len(labels), "image_id": number, "category_id": category, "bbox": box, **more}
            )
    categories = [{"id": 1, "name": "cell_phone"}, {"id": 2, "name": "other"}, {"id": 3, "name": "wall-wood"}]
    return {"images": records, "annotations": labels, "categories": categories}


def test_layouts_are_images_of_three_to_eight_objects_over_two_percent():
    large = (1, 4, {})
    data = annotations(
        [large] * 2,
        [large] * 3,
        [large] * 8,
        [large] * 9,
        [large, large, (1, 2, {})],  # exactly 2%: dropped, so only two are left
        [large, large, (1, 2.01, {})],
        [large, large, (2, 4, {})],
        [large, large, (1, 4, {"iscrowd": 1})],
    )
    found = read_layouts(data, LayoutSettings())
    assert [(it.image_id, len(it.objects)) for it in found] == [(2, 3), (3, 8), (6, 3)]
    with pytest.raises(InputError, match="none of 1 training images has 3 to 8"):
        read_layouts(annotations([large]), LayoutSettings())


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_check_9_layouts_of_cocos_own_images_are_those_of_a_plain_count(shared_dir, split):
    """Of its things alone: with stuff, which no data set here has, 3,097 validation images are published."""
    path = shared_dir / "data/coco-mini/annotations" / f"instances_{split}.json"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    expected = []
    for image in coco.loadImgs(coco.getImgIds()):
        labels = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        least = 0.02 * image["width"] * image["height"]
        if 3 <= sum(it["bbox"][2] * it["bbox"][3] > least for it in labels) <= 8:
            expected.append(image["id"])
    found = read_layouts(coco.dataset, LayoutSettings())
    assert [it.image_id for it in found] == expected and 10 < len(expected) < 90


def test_names_of_classes_lose_hyphens_and_boxes_are_cut_at_the_border():
    data = annotations([(3, 4, {"bbox": [-10, 50, 60, 60]}), (1, 4, {}), (1, 4, {})])
    first, second, _ = read_layouts(data, LayoutSettings(), {1: "hard"})[0].objects
    assert (first.name, second.name) == ("wall wood", "cell phone")
    assert first.box == (0, 50, 50, 50) and first.attribute is None and second.attribute == "hard"
    data["annotations"][0]["bbox"] = [float("nan"), 0, 10, 10]
    with pytest.raises(InputError, match="not finite"):
        read_layouts(data, LayoutSettings())


def test_a_moved_layout_loses_what_leaves_the_image_or_stays_where_it_was(caplog):
    caplog.set_level(logging.WARNING)
    boxes = [[0, 0, 40, 40], [50, 50, 40, 40], [150, 50, 40, 40], [100, 0, 40, 40]]
    moved = shift(layout(*boxes), 30, 0, LayoutSettings(), 0.5)
    assert [it.box for it in moved.objects] == [
        (30, 0, 40, 40),
        (80, 50, 40, 40),
        (180, 50, 20, 40),
        (130, 0, 40, 40),
    ]
    fewer = shift(layout(*boxes), 35, 0, LayoutSettings(), 0.5)
    assert len(fewer.objects) == 3  # of the third only 15 of 40 px would be left
    original = layout(*boxes)
    assert shift(original, 150, 0, LayoutSettings(), 0.5) is original
