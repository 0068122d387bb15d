"""A user's own folder in the layout of COCO, VOC or YOLO: recognised, read, parted; bad ones dropped."""

import csv
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import own_annotations
import own_layouts
from gen4det.core.errors import InputError
from gen4det.data.annotations import is_object
from gen4det.data.datasets import load_dataset
from gen4det.data.defects import HINT, Defects
from gen4det.data.images import image_name
from gen4det.data.photographs import register_photographs
from gen4det.data.pictures_seen import FOLDER, seen_file
from gen4det.data.source_settings import PhotographsDataset
from gen4det.data.sources.parting import part
from gen4det.data.sources.yolo_folder import label_file
from gen4det.orchestration.own_files import folder_token

WRITERS = {"coco": own_layouts.coco, "voc": own_layouts.voc, "yolo": own_layouts.yolo}


def register(folder, **options):
    output = folder.parent / "out" / "dataset.json"
    settings = PhotographsDataset(source="photographs", folder=str(folder), **options)
    left_out = register_photographs("mine", settings, output)
    return load_dataset(output), left_out


def refusal(folder, **options) -> str:
    with pytest.raises(InputError) as error:
        register(folder, **options)
    assert "\n" not in str(error.value)
    assert not (folder.parent / "out").exists()
    return str(error.value)


def labels(split) -> dict[str, list]:
    """{image: [(category, box), ...]}."""
    data = split.load()
    names = {category["id"]: category["name"] for category in data["categories"]}
    files = {image["id"]: Path(image_name(image)).name for image in data["images"]}
    found = {name: [] for name in files.values()}
    for it in data["annotations"]:
        found[files[it["image_id"]]].append((names[it["category_id"]], [round(v, 4) for v in it["bbox"]]))
    return found


def expected(split: str) -> dict[str, list]:
    return {
        f"{split}{k}.png": [("cup", [5 + k, 10, 20, 16]), ("fish", [50 + k, 30, 24, 30])]
        for k in range(own_annotations.SPLITS[split])
    }


@pytest.mark.parametrize("layout", WRITERS)
def test_each_layout_is_recognised_and_gives_the_same_boxes(layout, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        dataset, left_out = register(WRITERS[layout](tmp_path / "mine"))
    assert "the layout is that of" in caplog.text
    assert left_out == {"annotation": 0, "image": 0}
    for split in ("train", "val"):
        assert labels(getattr(dataset, split)) == expected(split)
        images = getattr(dataset, split).images
        assert images.image(image_name(getattr(dataset, split).load()["images"][0])).shape == (72, 96, 3)


def test_yolo_polygons_become_masks(tmp_path):
    dataset, _ = register(own_layouts.yolo(tmp_path / "mine", polygons=True))
    assert labels(dataset.train) == expected("train")
    first = dataset.train.load()["annotations"][0]
    assert np.allclose(first["segmentation"], [[5, 10, 25, 10, 25, 26, 5, 26]], atol=1e-5)


def test_voc_counts_pixels_from_1_unless_a_coordinate_is_0(tmp_path, caplog):
    at_the_edge = lambda data: data["annotations"][0].update(bbox=[0, 0, 20, 16])  # noqa: E731
    with caplog.at_level(logging.INFO):
        dataset, _ = register(own_layouts.voc(tmp_path / "edges", first_pixel=0, train=at_the_edge))
    assert "pixels are counted from 0" in caplog.text
    assert labels(dataset.train)["train0.png"][0] == ("cup", [0, 0, 20, 16])
    shutil.rmtree(tmp_path / "out")
    dataset, _ = register(own_layouts.voc(tmp_path / "voc", train=at_the_edge))
    assert labels(dataset.train)["train0.png"][0] == ("cup", [0, 0, 20, 16])
    shutil.rmtree(tmp_path / "out")
    dataset, _ = register(tmp_path / "voc", first_pixel=0)
    assert labels(dataset.train)["train0.png"][0] == ("cup", [1, 1, 19, 15])


def test_masks_of_voc_are_no_photographs(tmp_path, caplog):
    folder = own_layouts.voc(tmp_path / "mine")
    for name in ("A/SegmentationClass", "SegmentationObject"):
        (folder / name).mkdir(parents=True)
        for path in (folder / "JPEGImages").iterdir():
            (folder / name / path.name).write_bytes(b"no picture")
    dataset, _ = register(folder)
    assert labels(dataset.train) == expected("train")
    assert "have no XML file" not in caplog.text


def test_difficult_objects_of_voc_are_learnt_and_ignored_when_measured(tmp_path):
    mark = lambda data: data["annotations"][0].update(iscrowd=1)  # noqa: E731
    dataset, _ = register(own_layouts.voc(tmp_path / "mine", train=mark, val=mark))
    assert [it["iscrowd"] for it in dataset.train.load()["annotations"]][:2] == [0, 0]
    assert [it["iscrowd"] for it in dataset.val.load()["annotations"]][:2] == [1, 0]


def test_a_folder_of_xml_files_beside_the_images(tmp_path):
    folder = own_layouts.voc(tmp_path / "mine")
    for split, name in (("train", "train"), ("val", "valid")):
        (folder / name).mkdir()
        for stem in (folder / "ImageSets/Main" / f"{split}.txt").read_text().split():
            (folder / "Annotations" / f"{stem}.xml").rename(folder / name / f"{stem}.xml")
            (folder / "JPEGImages" / f"{stem}.png").rename(folder / name / f"{stem}.png")
    shutil.rmtree(folder / "ImageSets")
    dataset, _ = register(folder)
    assert labels(dataset.train) == expected("train") and labels(dataset.val) == expected("val")


def test_sizes_that_a_coco_file_leaves_open_are_those_of_the_images_and_ids_may_begin_at_0(tmp_path):
    def as_label_studio_writes(data):
        for key in ("images", "annotations", "categories"):
            for record in data[key]:
                record["id"] -= 1
        for record in data["annotations"]:
            record["image_id"] -= 1
            record["category_id"] -= 1
        data["annotations"] = [it for it in data["annotations"] if it["image_id"] != 3]
        data["images"][3] |= {"width": None, "height": None}

    folder = own_layouts.coco(tmp_path / "mine", train=as_label_studio_writes, val=as_label_studio_writes)
    dataset, _ = register(folder)
    assert labels(dataset.train) == expected("train") | {"train3.png": []}
    assert dataset.train.load()["images"][3]["width"] == 96


def test_yolo_images_without_a_text_file_show_no_object(tmp_path):
    folder = own_layouts.yolo(tmp_path / "mine")
    (folder / "labels/train/train3.txt").unlink()
    (folder / "labels/train/train4.txt").write_text("")
    dataset, _ = register(folder)
    assert labels(dataset.train) == expected("train") | {"train3.png": [], "train4.png": []}


def test_yolo_with_a_list_of_classes_alone_is_parted(tmp_path):
    folder = own_layouts.yolo(tmp_path / "mine")
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("cup\nfish\n")
    dataset, _ = register(folder)
    assert labels(dataset.train) | labels(dataset.val) == expected("train") | expected("val")
    assert len(dataset.val.load()["images"]) == 4  # 0.2 of 18


def test_a_yolo_validation_folder_without_images_is_passed_over(tmp_path, caplog):
    folder = own_layouts.yolo(tmp_path / "mine")
    shutil.rmtree(folder / "images/val")
    (folder / "images/val").mkdir()
    dataset, _ = register(folder)
    assert "val has no images and is passed over" in caplog.text and "one split only" in caplog.text
    assert labels(dataset.train) | labels(dataset.val) == expected("train")
    shutil.rmtree(folder / "images/train")
    (folder / "images/train").mkdir()
    shutil.rmtree(tmp_path / "out")
    assert "no images in" in refusal(folder)


def test_labels_lie_where_the_last_folder_images_is(tmp_path):
    assert label_file(Path("/a/images/b/images/c/7.jpg")) == Path("/a/images/b/labels/c/7.txt")
    assert label_file(Path("/a/7.jpg")) == Path("/a/7.txt")


# --- one split ------------------------------------------------------------------------------------


def test_one_split_is_parted_by_the_seed_and_said_in_the_log(tmp_path, caplog):
    folder = own_layouts.coco_of_one_split(tmp_path / "mine")
    dataset, _ = register(folder, validation_share=0.25)
    assert "one split only; by split_seed 0 and validation_share 0.25" in caplog.text
    assert "9 images for training, 3 for validation; 2 of 2 categories have objects in both" in caplog.text
    both = [labels(dataset.train), labels(dataset.val)]
    assert both[0] | both[1] == expected("train") and not both[0].keys() & both[1].keys()
    again, _ = register(folder, validation_share=0.25)
    assert labels(again.val) == both[1]
    other, _ = register(folder, validation_share=0.25, split_seed=1)
    assert labels(other.val) != both[1]


def test_a_training_file_without_validation_is_parted(tmp_path):
    folder = own_annotations.write(tmp_path / "mine")
    train = {"annotations": str(folder / "train.json"), "images": str(folder / "train")}
    settings = PhotographsDataset(source="photographs", train=train)
    register_photographs("mine", settings, tmp_path / "out" / "dataset.json")
    dataset = load_dataset(tmp_path / "out" / "dataset.json")
    assert labels(dataset.train) | labels(dataset.val) == expected("train")


def test_too_few_images_to_part_are_refused(tmp_path):
    def one_image(data):
        data["images"] = data["images"][:1]
        data["annotations"] = data["annotations"][:2]

    folder = own_layouts.coco_of_one_split(tmp_path / "mine", train=one_image)
    assert "1 images are too few to set a validation split apart" in refusal(folder)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(1, 5), max_size=3), min_size=20, max_size=60), st.integers(0, 3))
def test_parting_keeps_the_share_of_every_category(shown, seed):
    images = [{"id": 7 * k} for k in range(len(shown))]
    pairs = [(7 * k, category) for k, categories in enumerate(shown) for category in categories]
    annotations = [{"image_id": image, "category_id": category} for image, category in pairs]
    data = {"images": images, "annotations": annotations, "categories": []}
    train, val = part(data, 0.25, seed)
    assert len(train["images"]) + len(val["images"]) == len(images)
    assert len(train["annotations"]) + len(val["annotations"]) == len(annotations)
    for category in range(1, 6):
        total = sum(category in it for it in shown)
        held = sum(it["category_id"] == category for it in val["annotations"])
        assert abs(held - 0.25 * total) <= 4 and (total == 0 or held < total)
    order = data | {"images": images[::-1], "annotations": annotations[::-1]}
    again = part(order, 0.25, seed)[1]
    assert {it["id"] for it in again["images"]} == {it["id"] for it in val["images"]}


# --- bad ones -------------------------------------------------------------------------------------


def spoil_coco(folder):
    path = folder / "annotations" / "instances_train.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["bbox"] = [3, 3, 0, 5]
    data["annotations"][3]["category_id"] = 9
    data["annotations"][5]["segmentation"] = [[1, 2, 3]]
    path.write_text(json.dumps(data))


def spoil_yolo(folder):
    for stem, lines in (
        ("train0", "0 0.5 0.5 0 0.1"),
        ("train1", "7 0.5 0.5 0.1 0.1"),
        ("train2", "0 a b c d"),
    ):
        with open(folder / "labels/train" / f"{stem}.txt", "a") as stream:
            stream.write(f"\n{lines}\n")


def spoil_voc(folder):
    changes = (("train0", "<xmin>6</xmin>", "<xmin>26</xmin>"), ("train1", "<ymin>11</ymin>", ""),
               ("train2", "<name>cup</name>", "<name/>"))  # fmt: skip
    for stem, old, new in changes:
        path = folder / "Annotations" / f"{stem}.xml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize("layout", WRITERS)
def test_bad_annotations_are_refused_by_a_line_that_names_the_setting(layout, tmp_path):
    folder = WRITERS[layout](tmp_path / "mine")
    {"coco": spoil_coco, "voc": spoil_voc, "yolo": spoil_yolo}[layout](folder)
    if layout == "coco":
        assert "annotation 4: unknown category 9" in refusal(folder)
    else:
        assert refusal(folder).endswith(HINT) and "on_bad_annotation" in HINT


@pytest.mark.parametrize("layout", WRITERS)
def test_dropped_annotations_and_images_stand_in_a_file_with_their_reasons(layout, tmp_path, caplog):
    folder = WRITERS[layout](tmp_path / "mine")
    {"coco": spoil_coco, "voc": spoil_voc, "yolo": spoil_yolo}[layout](folder)
    (path,) = folder.rglob("train7.png")
    path.write_bytes(path.read_bytes()[:-2000])
    dataset, left_out = register(folder, on_bad_annotation="drop")
    assert left_out == {"annotation": 3, "image": 1}
    assert "left out 3 bad annotations and 1 bad images" in caplog.text
    written = json.loads((tmp_path / "out" / "dropped.json").read_text())
    assert written["counts"] == left_out and len(written["dropped"]) == 4
    with open(tmp_path / "out" / "dropped.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert sum(int(row["left out"]) for row in table) == 4 and all(row["the first"] for row in table)
    assert all(entry["reason"] and entry["where"] for entry in written["dropped"])
    found = labels(dataset.train)
    assert "train7.png" not in found and len(found) == 11
    for stem in ("train3", "train8"):
        assert found[f"{stem}.png"] == expected("train")[f"{stem}.png"]
    shutil.rmtree(tmp_path / "out")


def test_reasons_that_differ_in_numbers_alone_are_counted_together():
    defects = Defects("drop")
    for k, reason in enumerate(("unknown category 9", "unknown category 11", "box [1, 2, 0, 3]: zero area")):
        defects.add("annotation", f"train.json: annotation {k}", reason)
    defects.add("image", "a.png", "640x480 pixels, but train.json says 320x240")
    assert defects.by_reason() == [
        ("annotation", "unknown category ...", 2, "train.json: annotation 0"),
        ("annotation", "box ...: zero area", 1, "train.json: annotation 2"),
        ("image", "... pixels, but train.json says ...", 1, "a.png"),
    ]


def test_what_was_dropped_is_forgotten_once_nothing_may_be(tmp_path):
    folder = own_layouts.coco(tmp_path / "mine")
    register(folder, on_bad_annotation="drop")
    assert (tmp_path / "out" / "dropped.json").exists()
    register(folder)
    assert not (tmp_path / "out" / "dropped.json").exists()


def test_a_broken_xml_file_is_a_bad_image(tmp_path):
    folder = own_layouts.voc(tmp_path / "mine")
    (folder / "Annotations/train5.xml").write_text("<annotation><size>")
    assert "train5.xml: not XML" in refusal(folder)
    dataset, left_out = register(folder, on_bad_annotation="drop")
    assert left_out["image"] == 1 and "train5.png" not in labels(dataset.train)


def test_two_layouts_at_once_are_refused_by_name(tmp_path):
    folder = own_layouts.yolo(tmp_path / "mine")
    own_layouts.coco(tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "annotations", folder / "annotations")
    assert "COCO or LVIS (JSON) and YOLO (data.yaml); set layout to one: coco, yolo" in refusal(folder)
    dataset, _ = register(folder, layout="yolo")
    assert labels(dataset.train) == expected("train")


def test_two_annotation_files_of_one_split_are_refused_by_name(tmp_path):
    folder = own_layouts.coco(tmp_path / "mine")
    for name in ("one_train.json", "two_train.json"):
        shutil.copy(folder / "annotations/instances_train.json", folder / "annotations" / name)
    (folder / "annotations/instances_train.json").unlink()
    assert "2 annotation files of train: annotations/one_train.json, annotations/two_train.json" in refusal(
        folder
    )


def test_a_folder_without_annotations_or_images(tmp_path):
    folder = own_layouts.coco(tmp_path / "mine")
    shutil.rmtree(folder / "annotations")
    assert "images, but no annotation in the layout of COCO, LVIS, PASCAL VOC or YOLO" in refusal(folder)
    shutil.rmtree(folder / "images")
    assert "neither annotations nor images" in refusal(folder)
    assert "no such folder" in refusal(tmp_path / "nowhere")


def test_classes_that_differ_between_splits_are_refused(tmp_path):
    folder = own_layouts.coco(tmp_path / "mine", val=lambda data: data["categories"][0].update(name="mug"))
    assert "category 1 is 'mug', but 'cup'" in refusal(folder)


def test_class_names_given_twice_or_as_no_list_are_refused(tmp_path):
    folder = own_layouts.yolo(tmp_path / "mine")
    description = folder / "data.yaml"
    text = description.read_text()
    description.write_text(text.replace("1: fish", "1: cup"))
    assert "names: two classes are called 'cup'" in refusal(folder)
    description.write_text(text.replace("1: fish", "2: fish"))
    assert "names: expected a list of classes" in refusal(folder)
    description.write_text(text.replace("images/val", "images/nowhere"))
    assert "val: no folder or list of images 'images/nowhere'" in refusal(folder)


# --- noticed --------------------------------------------------------------------------------------


def test_a_file_added_exchanged_or_deleted_in_a_folder_is_noticed_another_time_is_not(tmp_path):
    folder = own_layouts.yolo(tmp_path / "mine")
    register(folder)
    seen = seen_file(tmp_path / "out" / "dataset.json", FOLDER)
    before = folder_token(seen, folder)
    label = folder / "labels/train/train0.txt"
    label.touch()
    assert folder_token(seen, folder) == before
    text = label.read_text()
    label.write_text(text.replace("0.", "0.0"))
    assert folder_token(seen, folder) != before
    label.write_text(text)
    assert folder_token(seen, folder) == before
    (folder / "labels/train/new.txt").write_text("")
    assert folder_token(seen, folder) != before


# --- real photographs -----------------------------------------------------------------------------


def test_real_coco_files_are_found_in_their_folder(shared_dir, tmp_path):
    root = shared_dir / "data" / "coco-mini"
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).symlink_to(root / split)
        shutil.copy(root / "annotations" / f"instances_{split}.json", folder / "annotations")
    dataset, _ = register(folder, allow_empty_categories=True)
    given = json.loads((root / "annotations/instances_train2017.json").read_text())
    train = dataset.train.load()
    assert len(train["images"]) == len(given["images"])
    assert sum(map(is_object, train["annotations"])) == sum(map(is_object, given["annotations"]))


# --- the same defects in every layout ---------------------------------------------------------------


def outside(data: dict) -> None:
    data["annotations"][0]["bbox"] = [90, 10, 20, 16]
    data["annotations"][0]["segmentation"] = [[90, 10, 110, 10, 110, 26, 90, 26]]


def nothing(data: dict) -> None:
    data["annotations"] = []


def no_fish(data: dict) -> None:
    data["annotations"] = [it for it in data["annotations"] if it["category_id"] == 1]


DEFECTS = {
    # what is changed in the training annotations, or in the first image; what the line says
    "box outside the image": (outside, None, r"outside|exceeds|reaches"),
    "no object": (nothing, None, r"no annotation|nothing can be learnt|no object"),
    "a class in validation alone": (no_fish, None, r"fish|have no image|classes|category"),
    "a missing image": (None, lambda path: path.unlink(), r"train0"),
    "a cut image": (None, lambda path: path.write_bytes(path.read_bytes()[:-2000]), r"train0\.png"),
    "an image that is text": (None, lambda path: path.write_text("<html>404</html>"), r"train0\.png"),
    "an image of another size": (
        None,
        lambda path: Image.new("RGB", (30, 20)).save(path),
        r"train0\.png: 30x20 pixels|outside|exceeds|reaches",
    ),
}


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_line_in_every_layout(defect, layout, tmp_path):
    change, spoil, says = DEFECTS[defect]
    folder = WRITERS[layout](tmp_path / "mine", **({"train": change} if change else {}))
    if spoil:
        (path,) = folder.rglob("train0.png")
        spoil(path)
    if (defect, layout) in {("a missing image", "yolo"), ("an image of another size", "yolo")}:
        dataset, _ = register(folder)  # a text file without an image says nothing; nor is a size written down
        assert len(dataset.train.load()["images"]) == (11 if "missing" in defect else 12)
        return
    assert re.search(says, refusal(folder))


def test_numbers_of_classes_that_the_names_do_not_reach_are_refused(tmp_path):
    """YOLO's splits share one list of names; what can differ is how far the numbers go."""
    folder = own_layouts.yolo(tmp_path / "mine")
    with open(folder / "labels/val/val0.txt", "a") as stream:
        stream.write("\n2 0.5 0.5 0.1 0.1\n")
    assert "class 2; expected 0 to 1" in refusal(folder)


def test_an_empty_folder_or_a_file_in_its_place(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "neither annotations nor images" in refusal(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    assert "no such folder" in refusal(tmp_path / "file")
