"""Annotation files: what is refused, what is filled in, how masks keep their meaning."""

import copy
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lvis import LVIS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy.ndimage import binary_fill_holes

from gen4det.core.errors import InputError
from gen4det.data.annotations import (
    category_counts,
    frequency_groups,
    index_annotations,
    load_annotations,
    to_lvis,
    write_annotations,
)
from gen4det.data.images import ImageStore, encode_image
from gen4det.data.masks import (
    area_of_rle,
    box_of_rle,
    mask_to_rle,
    polygons_to_rle,
    rle_to_mask,
    rle_to_polygons,
    run_lengths,
    segmentation_to_rle,
)
from gen4det.data.validation import drop_unusable, validate_annotations

SQUARE = [2.0, 2.0, 10.0, 2.0, 10.0, 12.0, 2.0, 12.0]


def scene() -> dict:
    """Three images of 40 x 30 pixels, two categories, one image without objects."""
    return {
        "images": [
            {"id": identifier, "file_name": f"{identifier}.png", "width": 40, "height": 30}
            for identifier in (7, 3, 5)
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [2, 2, 8, 10], "segmentation": [SQUARE]},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 40, 30.0], "segmentation": [SQUARE]},
            {"id": 9, "image_id": 5, "category_id": 90, "bbox": [1.5, 1.5, 4, 4], "segmentation": [SQUARE]},
        ],
        "categories": [{"id": 90, "name": "cup"}, {"id": 4, "name": "fish"}],
    }


def refusal(data: dict, **options) -> str:
    with pytest.raises(InputError) as error:
        validate_annotations(data, source="train.json", **options)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- validation -----------------------------------------------------------------------------------


def test_sound_file_passes_unchanged():
    data = scene()
    before = copy.deepcopy(data)
    assert validate_annotations(data, source="train.json") == []
    assert data == before


def changed(path: str, value: object) -> dict:
    data = scene()
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    record = data
    for part in parents:
        record = record[part]
    if value is KeyError:
        del record[last]
    else:
        record[last] = value
    return data


RLE_OF_OTHER_SIZE = mask_to_rle(np.ones((40, 30), dtype=bool))
EMPTY_RLE = mask_to_rle(np.zeros((30, 40), dtype=bool))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("images", [], "no images"),
        ("categories", [], "no categories"),
        ("images.1.id", 7, "image id 7 is used 2 times"),
        ("annotations.1.id", 9, "annotation id 9 is used 2 times"),
        ("categories.1.id", 90, "category id 90 is used 2 times"),
        ("categories.1.name", "cup", "two categories are called 'cup'"),
        ("categories.1.name", " ", "category 4: no name"),
        ("images.1.file_name", "7.png", "two images have the file name '7.png'"),
        ("images.1.file_name", KeyError, "image 3: neither file_name nor coco_url"),
        ("images.1.id", "3", "images[1]: id must be a whole number (got '3')"),
        ("images.1.id", KeyError, "images[1]: no id"),
        ("images.1", "3.png", "images[1]: expected an object, got '3.png'"),
        ("images.1.width", 0, "image 3: width 0"),
        ("images.1.height", 30.5, "image 3: height must be a whole number (got 30.5)"),
        ("images.1.height", KeyError, "image 3: no height"),
        ("annotations.2.image_id", 8, "annotation 9: unknown image 8"),
        ("annotations.2.category_id", 1, "annotation 9: unknown category 1"),
        ("annotations.2.category_id", None, "annotation 9: category_id must be a whole number (got None)"),
        ("annotations.2.bbox", [1, 1, 0, 5], "annotation 9: box [1, 1, 0, 5]: zero area"),
        ("annotations.2.bbox", [5, 5, -2, 5], "annotation 9: box [5, 5, -2, 5]: zero area"),
        ("annotations.2.bbox", [30, 5, 12, 5], "outside its image of 40x30 pixels"),
        ("annotations.2.bbox", [5, -1.5, 5, 5], "outside its image"),
        ("annotations.2.bbox", [5, 5, 5], "expected four finite numbers"),
        ("annotations.2.bbox", [5, 5, 5, "5"], "expected four finite numbers"),
        ("annotations.2.bbox", [5, 5, float("nan"), 5], "expected four finite numbers"),
        ("annotations.2.bbox", [5, 5, float("inf"), 5], "expected four finite numbers"),
        ("annotations.2.bbox", KeyError, "box None: expected four finite numbers"),
        ("annotations.2.segmentation", [[1, 1, 5, 5]], "polygon of 2 points: expected three at least"),
        ("annotations.2.segmentation", [[1, 1, 5, 5, 7, 1, 2]], "polygon of 7 numbers: expected pairs"),
        ("annotations.2.segmentation", [SQUARE, 5], "polygon 5: expected [x, y, x, y, ...]"),
        ("annotations.2.segmentation", [[1, 1, 5, 5, 7, "1"]], "polygon: coordinates that are not numbers"),
        ("annotations.2.segmentation", [[1, 1, 5, 5, 45, 1]], "polygon reaches outside its image"),
        ("annotations.2.segmentation", [[1, 1, 5, float("nan"), 7, 1]], "is not finite"),
        ("annotations.2.segmentation", "mask.png", "expected polygons or a run-length code"),
        ("annotations.2.segmentation", RLE_OF_OTHER_SIZE, "size [40, 30]; its image has [30, 40]"),
        ("annotations.2.segmentation", EMPTY_RLE, "empty mask"),
        ("annotations.2.segmentation", {"size": [30, 40], "counts": [5, 5]}, "add up to 30 x 40 pixels"),
        ("annotations.2.segmentation", {"size": [30, 40], "counts": "n"}, "run-length code"),
        ("annotations.2.segmentation", {"size": [30, 40]}, "counts of type NoneType"),
        ("annotations.1.category_id", 90, "1 of 2 categories have no image: 'fish'"),
    ],
)
def test_bad_input_is_refused_in_one_line(path, value, expected):
    message = refusal(changed(path, value))
    assert message.startswith("train.json: ")
    assert expected in message


def test_the_first_bad_annotation_is_named_and_the_rest_counted():
    data = changed("annotations.0.bbox", [0, 0, 0, 0])
    data["annotations"][2]["segmentation"] = [[1, 1]]
    assert "annotation 1: box [0, 0, 0, 0]: zero area (and 1 more such annotations)" in refusal(data)


@pytest.mark.parametrize("box", [[-1, -1, 10, 10], [29.4, 20, 11.5, 11], [0, 0, 41, 31]])
def test_rounding_beyond_the_border_is_tolerated_and_not_clipped(box):
    data = changed("annotations.2.bbox", box)
    data["annotations"][2]["segmentation"] = [[-0.6, -1, 41, 0, 40, 31]]
    assert validate_annotations(data, source="train.json") == []
    assert data["annotations"][2]["bbox"] == box


def test_empty_categories_are_an_error_by_default_and_a_named_warning_on_demand():
    data = scene()
    data["categories"] += [{"id": 1, "name": "key"}, {"id": 2, "name": "owl"}]
    assert refusal(data).endswith("2 of 4 categories have no image: 'key', 'owl'; remove them, or set "
                                  "allow_empty_categories")  # fmt: skip
    warnings = validate_annotations(data, source="train.json", allow_empty_categories=True)
    assert warnings == ["train.json: 2 of 4 categories have no image: 'key', 'owl'"]


def test_boxes_without_masks_are_a_warning():
    data = scene()
    del data["annotations"][0]["segmentation"]
    data["annotations"][1]["segmentation"] = []
    (warning,) = validate_annotations(data, source="train.json")
    assert warning == "train.json: 2 of 3 annotations have a box but no mask"


def test_crowds_with_uncompressed_counts_are_sound():
    data = scene()
    mask = np.zeros((30, 40), dtype=bool)
    mask[4:9, 3:20] = True
    columns = mask.T.reshape(-1).astype(int)
    borders = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff(np.concatenate([[0], borders, [columns.size]])).tolist()
    crowd = {"id": 20, "image_id": 3, "category_id": 4, "bbox": [3, 4, 17, 5], "iscrowd": 1}
    data["annotations"].append(crowd | {"segmentation": {"size": [30, 40], "counts": counts}})
    assert validate_annotations(data, source="train.json") == []
    segmentation = data["annotations"][-1]["segmentation"]
    assert np.array_equal(rle_to_mask(segmentation), mask)
    assert area_of_rle(segmentation) == mask.sum()
    assert box_of_rle(segmentation) == [3, 4, 17, 5]
    assert segmentation_to_rle(segmentation, 30, 40) == mask_to_rle(mask)


@pytest.fixture
def photographs(tmp_path):
    for identifier in (3, 5, 7):
        image = np.full((30, 40, 3), identifier, dtype=np.uint8)
        image[::2] = np.random.default_rng(identifier).integers(0, 256, (15, 40, 3))
        (tmp_path / f"{identifier}.png").write_bytes(encode_image(image, "png"))
    return tmp_path


@pytest.mark.parametrize("decode", [False, True])
def test_images_are_checked(photographs, decode):
    store = ImageStore(photographs)
    assert validate_annotations(scene(), source="train.json", images=store, decode=decode) == []

    content = (photographs / "5.png").read_bytes()
    (photographs / "5.png").unlink()
    assert refusal(scene(), images=store, decode=decode) == f"{photographs / '5.png'}: no such image"
    (photographs / "5.png").write_bytes(content[: len(content) // 2])
    if decode:
        assert f"{photographs / '5.png'}: damaged image" in refusal(scene(), images=store, decode=True)
    else:
        assert validate_annotations(scene(), source="train.json", images=store) == []
    (photographs / "5.png").write_bytes(encode_image(np.zeros((40, 30, 3), np.uint8), "png"))
    message = refusal(scene(), images=store, decode=decode)
    assert message.startswith(f"{photographs / '5.png'}: 30x40 pixels, but train.json says 40x30 (turned")


def test_unusable_annotations_of_public_files_are_left_out_and_named():
    data = changed("annotations.2.bbox", [9.98, 18.56, 15.52, 0.0])
    kept, dropped = drop_unusable(data, "train.json")
    assert [annotation["id"] for annotation in kept["annotations"]] == [1, 2]
    assert dropped == ["9 (box [9.98, 18.56, 15.52, 0.0]: zero area)"]
    assert drop_unusable(scene(), "train.json") == (scene(), [])
    with pytest.raises(InputError, match="unknown image"):
        drop_unusable(changed("annotations.2.image_id", 8), "train.json")


def test_large_files_are_checked_quickly():
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(5_000)]
    polygons = (rng.random((1000, 40)) * 470).round(2).tolist()
    annotations = [
        {"id": i, "image_id": i // 10, "category_id": i % 80, "bbox": [1.0, 2.0, 30.5, 40.25],
         "segmentation": [polygons[i % 1000]]}
        for i in range(50_000)
    ]  # fmt: skip
    categories = [{"id": i, "name": f"c{i}"} for i in range(80)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    started = time.process_time()
    assert validate_annotations(data, source="large.json") == []
    category_counts(data)
    assert time.process_time() - started < 5  # half a second; a loop over pairs would take hours


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"images": [', "not a JSON file, or cut short"),
        ("[]", "a JSON list, where an object is expected"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list of annotations"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, content, expected):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=expected) as error:
        load_annotations(path)
    assert str(error.value).startswith(f"{path}: ")
    with pytest.raises(InputError, match="No such file"):
        load_annotations(tmp_path / "b.json")


def test_equal_contents_give_equal_bytes(tmp_path):
    write_annotations(tmp_path / "a.json", scene())
    write_annotations(tmp_path / "b.json", dict(reversed(scene().items())))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert load_annotations(tmp_path / "a.json") == scene()


def test_full_disk_leaves_no_annotations(tiny_disk):
    with pytest.raises(InputError, match="No space left on device; nothing was written"):
        write_annotations(tiny_disk / "a.json", {"images": list(range(200_000))})
    assert list(tiny_disk.iterdir()) == []


def test_index_keeps_images_without_objects():
    index = index_annotations(scene())
    assert {image: [a["id"] for a in found] for image, found in index.items()} == {7: [1, 2], 3: [], 5: [9]}


# --- counts and LVIS's groups ---------------------------------------------------------------------


def with_images(count: int) -> dict:
    images = [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 9} for i in range(max(count, 1))]
    boxes = [
        {"id": 2 * i + k, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]}
        for i in range(count)
        for k in range(2)
    ]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]}


@pytest.mark.parametrize(
    ("images", "group"), [(0, "r"), (1, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f")]
)
def test_groups_follow_the_number_of_images_not_of_instances(images, group):
    assert category_counts(with_images(images)) == {1: (images, 2 * images)}
    assert frequency_groups(with_images(images)) == {1: group}


def test_the_field_frequency_is_believed_only_where_it_is_complete():
    data = scene()
    data["categories"][0]["frequency"] = "f"
    assert frequency_groups(data) == {90: "r", 4: "r"}
    data["categories"][1]["frequency"] = "c"
    assert frequency_groups(data) == {90: "f", 4: "c"}


def test_coco_file_serves_as_lvis(tmp_path):
    data = scene()
    data["annotations"].append(
        {"id": 30, "image_id": 3, "category_id": 4, "bbox": [0, 0, 9, 9], "iscrowd": 1,
         "segmentation": mask_to_rle(np.ones((30, 40), dtype=bool))}
    )  # fmt: skip
    filled = to_lvis(data)
    assert [a["id"] for a in filled["annotations"]] == [1, 2, 9]  # LVIS has no crowds
    by_id = {image["id"]: image for image in filled["images"]}
    assert by_id[7]["neg_category_ids"] == []
    assert by_id[5]["neg_category_ids"] == [4]
    assert by_id[3]["neg_category_ids"] == [90]  # fish: some are there, who knows how many
    assert by_id[3]["not_exhaustive_category_ids"] == [4]
    cup = filled["categories"][0]
    assert (cup["frequency"], cup["image_count"], cup["instance_count"]) == ("r", 2, 2)
    assert to_lvis(filled) == filled
    assert "neg_category_ids" not in data["images"][0]

    for annotation in filled["annotations"]:
        annotation["area"] = 1.0
    write_annotations(tmp_path / "lvis.json", filled)
    assert LVIS(str(tmp_path / "lvis.json")).get_cat_ids() == [90, 4]


def test_validation_groups_come_from_the_training_split():
    train, val = with_images(50), with_images(2)
    assert to_lvis(val, training=to_lvis(train))["categories"][0]["frequency"] == "c"
    assert to_lvis(val, training=to_lvis(train))["categories"][0]["image_count"] == 50


# --- masks ----------------------------------------------------------------------------------------

MASKS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


@settings(deadline=None)
@given(MASKS)
def test_run_lengths_agree_with_the_reference(mask):
    rle = mask_to_rle(mask)
    assert json.loads(json.dumps(rle)) == rle
    assert np.array_equal(rle_to_mask(rle), mask)
    assert area_of_rle(rle) == mask.sum()
    columns = mask.T.reshape(-1)
    expected = np.repeat(np.arange(len(run_lengths(rle))) % 2, run_lengths(rle)).astype(bool)
    assert np.array_equal(expected, columns)


def test_run_lengths_of_long_runs():
    mask = np.zeros((900, 1200), dtype=bool)
    mask[100:800, 5:1100] = True
    mask[:, 600] = False
    rle = mask_to_rle(mask)
    assert run_lengths(rle)[1::2].sum() == mask.sum()
    assert box_of_rle(rle) == [5, 100, 1095, 700]


@settings(deadline=None)
@given(
    st.text(st.characters(max_codepoint=130), max_size=12),
    st.lists(st.integers(1, 9), min_size=2, max_size=2),
)
def test_no_text_is_mistaken_for_a_mask(text, size):
    rle = {"size": size, "counts": text}
    try:
        runs = run_lengths(rle)
    except InputError:
        return
    assert runs.sum() == size[0] * size[1]
    assert rle_to_mask(rle).sum() == runs[1::2].sum()


@settings(deadline=None)
@given(MASKS)
def test_outlines_give_the_mask_back_with_holes_filled(mask):
    polygons = rle_to_polygons(mask_to_rle(mask))
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
    if not mask.any():
        assert polygons == []
        return
    # Diagonal neighbours belong together, so that a hole is what no 4-connected path of background leaves.
    filled = binary_fill_holes(mask)
    assert np.array_equal(rle_to_mask(polygons_to_rle(polygons, *mask.shape)), filled)


def test_outlines_of_a_large_smooth_mask_are_exact():
    y, x = np.mgrid[:300, :400]
    mask = ((x - 200) / 150) ** 2 + ((y - 140) / 120) ** 2 < 1 + 0.2 * np.sin(x / 9)
    polygons = rle_to_polygons(mask_to_rle(mask))
    assert np.array_equal(rle_to_mask(polygons_to_rle(polygons, 300, 400)), mask)


# --- real files -----------------------------------------------------------------------------------

REAL = [
    ("instances_train2017", "train2017", 11),
    ("instances_val2017", "val2017", 8),
    ("lvis_v1_train", ".", 11),
    ("lvis_v1_val", ".", 8),
]


@pytest.mark.parametrize(("file", "images", "empty"), REAL)
def test_real_files_pass_and_their_empty_categories_are_named(shared_dir, file, images, empty):
    root = shared_dir / "data" / "coco-mini"
    path = root / "annotations" / f"{file}.json"
    data = load_annotations(path)
    with pytest.raises(InputError, match=f"{empty} of 80 categories have no image: "):
        validate_annotations(data, source=path)
    (warning,) = validate_annotations(
        data, source=path, images=ImageStore(root / images), allow_empty_categories=True
    )
    assert warning.startswith(f"{path}: {empty} of 80 categories")


def test_real_polygons_agree_with_the_reference(shared_dir):
    path = shared_dir / "data" / "coco-mini" / "annotations" / "instances_train2017.json"
    data, reference = load_annotations(path), COCO(str(path))
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for annotation in data["annotations"][::10]:
        height, width = sizes[annotation["image_id"]]
        rle = segmentation_to_rle(annotation["segmentation"], height, width)
        assert np.array_equal(rle_to_mask(rle), reference.annToMask(annotation).astype(bool))
        assert run_lengths(rle)[1::2].sum() == coco_mask.area(rle)
