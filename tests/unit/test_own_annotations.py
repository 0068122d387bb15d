"""Annotation files as people have them: treated rightly, or refused in one line before anything is drawn."""

import logging
import math

import numpy as np
import pytest

from gen4det.core.errors import InputError
from gen4det.data.datasets import load_dataset
from gen4det.data.masks import mask_to_rle
from gen4det.data.photographs import register_photographs
from own_annotations import annotations, rectangle, settings, write


def registered(folder, *, train=None, val=None, **options) -> dict[str, dict]:
    """Both splits as later stages read them."""
    mask_detectors = options.pop("mask_detectors", ())
    write(folder / "mine", train=train, val=val)
    output = folder / "out" / "dataset.json"
    register_photographs("mine", settings(folder / "mine", **options), output, mask_detectors=mask_detectors)
    dataset = load_dataset(output)
    return {"train": dataset.train.load(), "val": dataset.val.load()}


def refusal(folder, **changes) -> str:
    with pytest.raises(InputError) as error:
        registered(folder, **changes)
    message = str(error.value)
    assert "\n" not in message and not (folder / "out").exists()
    return message


def everywhere(**values):
    """A change of every annotation."""
    return lambda data: [a.update(values) for a in data["annotations"]]


def first(**values):
    """A change of the first annotation."""
    return lambda data: data["annotations"][0].update(values)


def test_a_sound_data_set_is_taken_as_it_is(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        splits = registered(tmp_path)
    assert caplog.text == ""
    assert splits["train"] == annotations("train") and splits["val"] == annotations("val")


# --- crowds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["0", "false", None, 2, -1, 0.0, [], {}])
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_flags_are_0_1_true_false_or_absent(tmp_path, key, flag):
    message = refusal(tmp_path, val=first(**{key: flag}))
    assert message.startswith(f"{tmp_path / 'mine' / 'val.json'}: annotation 1: {key} must be 0, 1, true or")


def test_flags_of_every_spelling_become_0_or_1(tmp_path):
    def spell(data):
        for annotation, flag in zip(data["annotations"], (True, 1, False, 0), strict=False):
            annotation["iscrowd"] = flag
        del data["annotations"][4]["iscrowd"]

    flags = [a["iscrowd"] for a in registered(tmp_path, train=spell)["train"]["annotations"][:5]]
    assert flags == [1, 1, 0, 0, 0] and {type(flag) for flag in flags} == {int}


def crowds_of(category: int, key: str = "iscrowd"):
    def change(data):
        for annotation in data["annotations"]:
            if annotation["category_id"] == category:
                annotation[key] = 1

    return change


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_a_category_of_crowds_alone_is_named(tmp_path, key, caplog):
    message = refusal(tmp_path, train=crowds_of(2, key))
    assert "train.json: 1 of 2 categories have crowd regions alone: 'fish'; set iscrowd to 0 where" in message
    with caplog.at_level(logging.WARNING):
        registered(tmp_path / "val", val=crowds_of(1, key))
    assert "val.json: 1 of 2 categories have crowd regions alone: 'cup'" in caplog.text


@pytest.mark.parametrize("split", ["train", "val"])
def test_crowds_alone_are_an_error_whatever_is_allowed(tmp_path, split):
    changes = {split: everywhere(iscrowd=1)}
    message = refusal(tmp_path, allow_empty_categories=True, **changes)
    assert (
        f"{split}.json: every region is a crowd or to be ignored, none is an object; set iscrowd" in message
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_objects_is_an_error_whatever_is_allowed(tmp_path, split):
    changes = {split: lambda data: data["annotations"].clear()}
    message = refusal(tmp_path, allow_empty_categories=True, **changes)
    assert f"{split}.json: no annotations; nothing can be learnt from it, and nothing measured" in message


def test_a_category_without_any_object_is_left_out_of_the_data_set(tmp_path, caplog):
    """Some exports begin with a root category that no object has; engines would draw it."""

    def add_root(data):
        data["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        data["images"][0]["neg_category_ids"] = [0, 2]

    with caplog.at_level(logging.WARNING):
        splits = registered(tmp_path, train=add_root, val=add_root, allow_empty_categories=True)
    assert "1 categories have an object in neither file and are left out: 'things'" in caplog.text
    for data in splits.values():
        assert [category["id"] for category in data["categories"]] == [1, 2]
        assert data["images"][0]["neg_category_ids"] == [2]


def test_a_category_of_the_validation_alone_stays(tmp_path):
    """It is measured, so what was drawn for it counts."""

    def add(data):
        data["categories"].append({"id": 3, "name": "owl"})

    def add_and_show(data):
        add(data)
        data["annotations"].append(rectangle(99, 1, 3, 70, 5, 10, 10))

    splits = registered(tmp_path, train=add, val=add_and_show, allow_empty_categories=True)
    assert [category["id"] for category in splits["train"]["categories"]] == [1, 2, 3]


# --- fields -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "key", "value", "expected"),
    [
        ("annotations", "area", "320", "annotation 1: area must be a number, or left out (got '320')"),
        ("annotations", "area", True, "annotation 1: area must be a number"),
        ("annotations", "area", [320], "annotation 1: area must be a number"),
        ("annotations", "id", True, "annotations[0]: id must be a whole number (got True)"),
        ("annotations", "image_id", "1", "annotation 1: image_id must be a whole number (got '1')"),
        ("annotations", "category_id", 1.0, "annotation 1: category_id must be a whole number (got 1.0)"),
        ("annotations", "bbox", None, "annotation 1: box None: expected four finite numbers"),
        ("annotations", "bbox", [5, 10, True, 16], "expected four finite numbers"),
        ("annotations", "segmentation", 5, "annotation 1: segmentation: expected polygons or a run-length"),
        ("images", "file_name", 7, "image 1: file_name must be text, or left out (got 7)"),
        ("images", "coco_url", ["a"], "image 1: coco_url must be text"),
        ("images", "neg_category_ids", None, "image 1: neg_category_ids must be a list of category ids"),
        ("images", "neg_category_ids", ["1"], "image 1: neg_category_ids must be a list of category ids"),
        (
            "images",
            "not_exhaustive_category_ids",
            1,
            "not_exhaustive_category_ids must be a list of category",
        ),
        ("images", "width", "96", "image 1: width must be a whole number (got '96')"),
        ("images", "height", None, "image 1: height must be a whole number (got None)"),
        ("categories", "name", 5, "category 1: no name"),
        ("categories", "name", None, "category 1: no name"),
        ("categories", "def", 5, "category 1: def must be text, or left out (got 5)"),
        ("categories", "def", ["a cup"], "category 1: def must be text"),
        ("categories", "frequency", 12, "category 1: frequency must be r, c or f, or left out (got 12)"),
        ("categories", "split", "test", "category 1: split must be base or novel"),
        ("categories", "image_count", "12", "category 1: image_count must be a whole number from 0 on"),
        ("categories", "instance_count", -1, "category 1: instance_count must be a whole number from 0 on"),
    ],
)
def test_every_field_that_is_read_is_checked(tmp_path, records, key, value, expected):
    message = refusal(tmp_path, train=lambda data: data[records][0].update({key: value}))
    assert message.startswith(f"{tmp_path / 'mine' / 'train.json'}: ") and expected in message


@pytest.mark.parametrize("records", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, "text", {}])
def test_lists_of_another_type_are_refused(tmp_path, records, value):
    message = refusal(tmp_path, train=lambda data: data.update({records: value}))
    assert (
        message
        == f"{tmp_path / 'mine' / 'train.json'}: no list of {records}; expected the layout of COCO or LVIS"
    )


@pytest.mark.parametrize("form", ["coco", "lvis"])
def test_null_where_text_may_be_missing_is_no_text(tmp_path, form):
    def nothing(data):
        data["categories"][0]["def"] = None
        data["categories"][1]["frequency"] = None
        data["images"][0]["coco_url"] = None

    registered(tmp_path, train=nothing, format=form)


# --- areas ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0, -5, 2.0, 96 * 72, 0.0347])
@pytest.mark.parametrize("form", ["coco", "lvis"])
def test_an_area_that_is_not_its_regions_is_computed_anew(tmp_path, value, form, caplog):
    with caplog.at_level(logging.WARNING):
        splits = registered(tmp_path, val=first(area=value), format=form)
    assert [a["area"] for a in splits["val"]["annotations"][:2]] == [320, 720]
    told = "val.json: the area of 1 of 12 annotations is not that of their region and was computed anew; "
    assert (told in caplog.text) == (value is not None and math.isfinite(value))


def test_an_area_may_be_rounded(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        splits = registered(tmp_path, train=first(area=21 * 17))  # both ends of each side counted
    assert splits["train"]["annotations"][0]["area"] == 357 and caplog.text == ""


# --- boxes and masks ----------------------------------------------------------------------------------


def test_some_boxes_that_contradict_their_masks_are_one_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        registered(tmp_path, train=lambda data: data["annotations"][2].update(bbox=[40, 40, 20, 16]))
    (record,) = caplog.records
    assert record.message == (
        f"{tmp_path / 'mine' / 'train.json'}: box and mask of 1 of 24 objects contradict each other; "
        "the first is annotation 3: box [40, 40, 20, 16], around its mask [6.0, 10.0, 20.0, 16.0]"
    )


def test_corners_in_place_of_width_and_height_are_recognised_by_the_masks(tmp_path):
    def to_corners(data):
        for annotation in data["annotations"]:
            x, y, w, h = annotation["bbox"]
            x, y, w, h = x // 4, y // 4, w, h  # so that corners lie inside the image as sizes, too
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotation.update(bbox=[x, y, x + w, y + h], segmentation=[polygon], area=w * h)

    message = refusal(tmp_path, train=to_corners)
    assert "box and mask of" in message
    assert message.endswith("; the boxes are corners [x, y, x, y], expected [x, y, width, height]")


def test_corners_that_leave_the_image_are_recognised_by_the_image(tmp_path):
    def to_corners(data):
        for annotation in data["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["bbox"] = [x, y, x + w, y + h]

    message = refusal(tmp_path, train=to_corners)
    assert (
        "outside its image of 96x72 pixels; expected [x, y, width, height]: are these two corners?" in message
    )


def test_boxes_of_other_objects_than_the_masks_are_an_error(tmp_path):
    message = refusal(tmp_path, val=everywhere(bbox=[0, 0, 96, 72]))
    assert "box and mask of 12 of 12 objects contradict each other" in message
    assert message.endswith("; expected boxes [x, y, width, height] around the masks, in pixels")


def test_boxes_may_count_hidden_parts_and_be_rounded(tmp_path, caplog):
    def wider(data):
        for annotation in data["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["bbox"] = (
                [x - 1.5, y, w + 3, h] if annotation["category_id"] == 1 else [x, y, w, h + 6]
            )

    with caplog.at_level(logging.WARNING):
        registered(tmp_path, train=wider)
    assert caplog.text == ""


def test_run_length_masks_are_compared_with_boxes_too(tmp_path):
    def encode(data):
        for annotation in data["annotations"]:
            x, y, w, h = annotation["bbox"]
            mask = np.zeros((72, 96), bool)
            mask[y : y + h, x : x + w] = True
            annotation.update(segmentation=mask_to_rle(mask))

    splits = registered(tmp_path / "sound", train=encode)
    assert splits["train"]["annotations"][0]["area"] == 320

    def encode_and_move(data):
        encode(data)
        everywhere(bbox=[1, 1, 4, 4])(data)

    assert "box and mask of 24 of 24" in refusal(tmp_path / "moved", train=encode_and_move)


# --- masks, where a detector learns them ----------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("segmentation", [[], None, {}, ""])
def test_boxes_alone_are_refused_for_a_detector_of_masks_and_a_box_detector_is_named(
    tmp_path, split, segmentation
):
    changes = {split: first(segmentation=segmentation)}
    message = refusal(tmp_path, mask_detectors=["config/detectors/a.py"], **changes)
    count = 24 if split == "train" else 12
    assert message == (
        f"{tmp_path / 'mine' / split}.json: 1 of {count} annotations have no mask (the first is "
        "annotation 1), but masks are learnt by config/detectors/a.py; give all of them masks, or use a "
        "detector of boxes, e.g. config/detectors/photographs_faster_rcnn.py"
    )
    splits = registered(tmp_path / "boxes", **changes)
    assert "segmentation" not in splits[split]["annotations"][0]


# --- messages that lead to the fault --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (
            [5, 10, 25, 10, 25, 26, 5, 26],
            "one flat list of numbers; expected a list of polygons, [[x, y, x, y",
        ),
        ([[[5, 10], [25, 10], [25, 26]]], "a list of points [[x, y], ...]; expected one flat list"),
        ([{"size": [72, 96], "counts": "a"}], "a run-length code in a list; expected the code itself"),
        ([[5, 10, 25, 10, 25]], "polygon of 5 numbers: expected pairs"),
        ([[5, 10, 25, 10]], "polygon of 2 points: expected three at least"),
    ],
)
def test_a_polygon_of_another_layout_is_named(tmp_path, segmentation, expected):
    assert expected in refusal(tmp_path, train=first(segmentation=segmentation))


@pytest.mark.parametrize(("split", "other"), [("train", "val"), ("val", "train")])
def test_a_category_that_one_file_lacks_is_named(tmp_path, split, other):
    def without_fish(data):
        data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 1]
        del data["categories"][1]

    message = refusal(tmp_path, **{split: without_fish})
    mine = tmp_path / "mine"
    assert message == (
        f"{mine / split}.json: category 2 ('fish' of {mine / other}.json) is missing; expected the same "
        "categories in both files"
    )
