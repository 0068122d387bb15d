"""A user's own photographs: registered whole, or refused in one line before anything is written."""

import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from lvis import LVIS
from PIL import Image

from gen4det.core.errors import InputError
from gen4det.data.annotations import load_annotations, write_annotations
from gen4det.data.datasets import load_dataset
from gen4det.data.defects import HINT
from gen4det.data.images import ImageStore, encode_image, image_name
from gen4det.data.photographs import register_photographs
from gen4det.data.source_settings import PhotographsDataset, SubsetDataset
from gen4det.data.subsets import write_subset
from gen4det.data.validation import validate_annotations


def write_split(folder, split: str, count: int, first: int = 0) -> None:
    rng = np.random.default_rng(first)
    (folder / split).mkdir(parents=True)
    images, annotations = [], []
    for index in range(first, first + count):
        image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        (folder / split / f"{index}.jpg").write_bytes(encode_image(image, "jpeg"))
        images.append({"id": index, "file_name": f"{index}.jpg", "width": 40, "height": 30})
        polygon = [2, 2, 12, 2, 12, 7, 2, 7]
        annotations.append(
            {"id": index, "image_id": index, "category_id": 1 + index % 2, "bbox": [2, 2, 10, 5],
             "segmentation": [polygon]}
        )  # fmt: skip
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "fish"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    write_annotations(folder / f"{split}.json", data)


@pytest.fixture
def photographs(tmp_path):
    write_split(tmp_path / "mine", "train", 24)
    write_split(tmp_path / "mine", "val", 4, first=100)
    return tmp_path / "mine"


def source(folder, **options) -> PhotographsDataset:
    splits = {
        split: {"annotations": str(folder / f"{split}.json"), "images": str(folder / split)}
        for split in ("train", "val")
    }
    return PhotographsDataset(source="photographs", **({"format": "lvis"} | splits | options))


def refusal(settings: PhotographsDataset, output) -> str:
    with pytest.raises(InputError) as error:
        register_photographs("mine", settings, output)
    assert "\n" not in str(error.value)
    assert not output.parent.exists()
    return str(error.value)


def edit(path, change) -> None:
    data = load_annotations(path)
    change(data)
    write_annotations(path, data)


def test_coco_style_files_serve_as_lvis(photographs, tmp_path, caplog):
    output = tmp_path / "data" / "mine" / "dataset.json"
    with caplog.at_level(logging.INFO):
        register_photographs("mine", source(photographs), output)
    assert (
        "training 24 images with 24 objects, validation 4 images with 4 objects, 2 categories" in caplog.text
    )
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "dataset.json", "dropped.csv", "pictures_train.json", "pictures_val.json", "train.arrow",
        "train.json", "val.json",
    ]  # fmt: skip
    dataset = load_dataset(output)
    train, val = dataset.train.load(), dataset.val.load()
    assert [c["frequency"] for c in train["categories"]] == ["c", "c"]
    assert [c["image_count"] for c in val["categories"]] == [12, 12]  # of the training split
    assert train["images"][0]["neg_category_ids"] == [2]
    assert train["annotations"][0]["area"] == 50
    assert dataset.train.images.image(image_name(train["images"][0])).shape == (30, 40, 3)
    assert len(LVIS(str(output.parent / "val.json")).get_ann_ids()) == 4


def test_as_coco_every_annotation_has_what_the_evaluation_reads(photographs, tmp_path):
    register_photographs("mine", source(photographs, format="coco"), tmp_path / "out" / "dataset.json")
    dataset = load_dataset(tmp_path / "out" / "dataset.json")
    assert {(a["iscrowd"], a["area"]) for a in dataset.val.load()["annotations"]} == {(0, 50)}
    assert "frequency" not in dataset.val.load()["categories"][0]
    assert dataset.declared == dataset.train.load()["categories"]


def test_equal_input_gives_equal_bytes(photographs, tmp_path):
    for name in ("one", "two"):
        register_photographs("mine", source(photographs), tmp_path / name / "dataset.json")
    for file in ("dataset.json", "train.json", "val.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_changed_pixels_change_the_hash(photographs, tmp_path):
    register_photographs("mine", source(photographs), tmp_path / "one" / "dataset.json")
    (photographs / "train" / "3.jpg").write_bytes(encode_image(np.zeros((30, 40, 3), np.uint8), "jpeg"))
    register_photographs("mine", source(photographs), tmp_path / "two" / "dataset.json")
    one, two = (load_dataset(tmp_path / name / "dataset.json") for name in ("one", "two"))
    assert one.train.hash != two.train.hash
    assert one.val.hash == two.val.hash


def test_photographs_in_a_zip(photographs, tmp_path):
    shutil.make_archive(str(photographs / "photos"), "zip", photographs / "train")
    settings = source(photographs)
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"images": str(photographs / "photos.zip")})}
    )
    register_photographs("mine", settings, tmp_path / "out" / "dataset.json")
    assert load_dataset(tmp_path / "out" / "dataset.json").train.images.size("3.jpg") == (40, 30)


# --- refused before anything is written -----------------------------------------------------------


def test_missing_photograph(photographs, tmp_path):
    (photographs / "val" / "102.jpg").unlink()
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    path = photographs / "val" / "102.jpg"
    assert message == f"{path}: no such image; {HINT}"


def test_truncated_photograph(photographs, tmp_path):
    path = photographs / "train" / "20.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert message.startswith(f"{path}: damaged image: ")


def test_photograph_that_its_orientation_turns(photographs, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(photographs / "train" / "5.jpg", exif=exif)
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert "5.jpg: 30x40 pixels, but" in message and "EXIF orientation" in message


def test_bad_annotations_are_refused_before_the_first_image_is_opened(photographs, tmp_path):
    (photographs / "train" / "0.jpg").write_bytes(b"")
    edit(photographs / "val.json", lambda data: data["annotations"][1].update(bbox=[35, 2, 10, 5]))
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert message.startswith(
        f"{photographs / 'val.json'}: annotation 101: box [35, 2, 10, 5]: outside its image"
    )


def test_other_categories_in_validation(photographs, tmp_path):
    edit(photographs / "val.json", lambda data: data["categories"][1].update(name="shark"))
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert "category 2 is 'shark', but 'fish' in" in message


def test_category_without_training_images(photographs, tmp_path, caplog):
    for split in ("train", "val"):
        change = {"id": 7, "name": "owl"}
        edit(photographs / f"{split}.json", lambda data, change=change: data["categories"].append(change))
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert message.startswith(f"{photographs / 'train.json'}: 1 of 3 categories have no image: 'owl'")
    caplog.clear()
    settings = source(photographs, allow_empty_categories=True)
    register_photographs("mine", settings, tmp_path / "out" / "dataset.json")
    warnings = [record.message for record in caplog.records if "train.json" in record.message]
    assert warnings == [f"{photographs / 'train.json'}: 1 of 3 categories have no image: 'owl'"]


def test_missing_files(photographs, tmp_path):
    (photographs / "train.json").unlink()
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert message.startswith(f"{photographs / 'train.json'}: No such file or directory; expected")
    shutil.rmtree(photographs / "val")
    message = refusal(source(photographs), tmp_path / "out" / "dataset.json")
    assert message == f"{photographs / 'val'}: no such folder or zip of images"


# --- read with care -------------------------------------------------------------------------------


def test_leak_of_validation_images_is_told(photographs, tmp_path, caplog):
    shutil.copy(photographs / "train" / "3.jpg", photographs / "val" / "101.jpg")
    register_photographs("mine", source(photographs), tmp_path / "out" / "dataset.json")
    assert "1 images of the validation split are also in the training split" in caplog.text


def test_groups_that_are_not_those_of_lvis_are_told(photographs, tmp_path, caplog):
    for split in ("train", "val"):
        edit(
            photographs / f"{split}.json", lambda data: [c.update(frequency="f") for c in data["categories"]]
        )
    register_photographs("mine", source(photographs), tmp_path / "out" / "dataset.json")
    assert "frequency of 2 of 2 categories differs" in caplog.text
    dataset = load_dataset(tmp_path / "out" / "dataset.json")
    assert {c["frequency"] for c in dataset.train.load()["categories"]} == {"f"}


def test_federated_annotations_as_coco_are_told(photographs, tmp_path, caplog):
    change = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    edit(photographs / "train.json", lambda data: [image.update(change) for image in data["images"]])
    register_photographs("mine", source(photographs, format="coco"), tmp_path / "out" / "dataset.json")
    assert "annotated federatedly" in caplog.text


# --- the stage, with real photographs -------------------------------------------------------------


def stage(settings: dict, output) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "gen4det.stages.photographs"]
    arguments = ["--settings", json.dumps({"settings": settings, "code": "0"}), "--output", str(output)]
    return subprocess.run(command + arguments, capture_output=True, text=True)


def real(shared_dir, annotations: str, images: tuple[str, str], **options) -> dict:
    root = shared_dir / "data" / "coco-mini"
    settings = {"source": "photographs", **options}
    for split, folder in zip(("train", "val"), images, strict=True):
        path = root / "annotations" / annotations.format(split)
        settings[split] = {"annotations": str(path), "images": str(root / folder)}
    return settings


def test_real_lvis_files_become_a_data_set(shared_dir, tmp_path):
    settings = real(shared_dir, "lvis_v1_{}.json", (".", "."), format="lvis", allow_empty_categories=True)
    output = tmp_path / "lvis" / "dataset.json"
    result = stage(settings, output)
    assert result.returncode == 0, result.stderr
    dataset = load_dataset(output)
    assert dataset.name == "lvis"
    for split in (dataset.train, dataset.val):
        data = split.load()
        assert (len(data["images"]), len(data["categories"])) == (100, 76)  # 4 of 80 are in neither split
        validate_annotations(data, source="", images=split.images, allow_empty_categories=True)
    record = json.loads((output.parent / "dataset.json.record.json").read_text())
    assert record["settings"]["format"] == "lvis"
    assert set(record["inputs"]) == {settings["train"]["annotations"], settings["val"]["annotations"]}


def test_real_coco_files_become_an_lvis_data_set(shared_dir, tmp_path):
    images = ("train2017", "val2017")
    settings = real(shared_dir, "instances_{}2017.json", images, format="lvis", allow_empty_categories=True)
    output = tmp_path / "mine" / "dataset.json"
    result = stage(settings, output)
    assert result.returncode == 0, result.stderr
    train = load_dataset(output).train.load()
    groups = [c["frequency"] for c in train["categories"]]
    assert (groups.count("r"), groups.count("c"), groups.count("f")) == (75, 1, 0)
    shown = {(a["image_id"], a["category_id"]) for a in train["annotations"]}
    for image in train["images"]:
        assert len(image["neg_category_ids"]) + sum(i == image["id"] for i, _ in shown) == 76


def test_the_stage_refuses_in_one_line_with_status_2(shared_dir, tmp_path):
    settings = real(shared_dir, "lvis_v1_{}.json", (".", "."), format="lvis")
    result = stage(settings, tmp_path / "lvis" / "dataset.json")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "11 of 80 categories have no image: 'fire_hydrant'" in line
    assert not (tmp_path / "lvis").exists()


def test_images_of_coco_mini_are_found_by_url(shared_dir):
    root = shared_dir / "data" / "coco-mini"
    data = load_annotations(root / "annotations" / "lvis_v1_val.json")
    assert all(ImageStore(root).exists(image_name(image)) for image in data["images"])


def test_photographs_of_sixteen_bits_are_scaled_as_the_settings_say_wherever_they_are_read(
    photographs, tmp_path
):
    for split in ("train", "val"):
        data = load_annotations(photographs / f"{split}.json")
        for record in data["images"]:
            file = photographs / split / record["file_name"]
            eight = np.array(Image.open(file).convert("L")).astype(np.uint16)
            file.unlink()
            record["file_name"] = f"{record['id']}.png"
            Image.fromarray(eight * 16).save(file.with_suffix(".png"))
        write_annotations(photographs / f"{split}.json", data)
    refused = refusal(source(photographs), tmp_path / "refused" / "dataset.json")
    assert "0.png: more than 8 bits per channel" in refused and "the setting sixteen_bit" in refused

    hashes = set()
    for setting, white in (("full-range", 65535), (4080, 4080)):
        output = tmp_path / f"data-{setting}" / "dataset.json"
        register_photographs("mine", source(photographs, sixteen_bit=setting), output)
        write_subset(
            "some", SubsetDataset(source="subset", of="mine", share=0.5), output, tmp_path / "some.json"
        )
        for dataset in (load_dataset(output), load_dataset(tmp_path / "some.json")):
            record = dataset.train.load()["images"][0]
            stored = np.array(Image.open(photographs / "train" / record["file_name"])).astype(float)
            expected = np.floor(stored / white * 255 + 0.5)
            assert np.array_equal(dataset.train.images.image(record["file_name"])[..., 2], expected)
        hashes.add(load_dataset(output).train.hash)
    assert len(hashes) == 2, "what is drawn after other pixels is another split"
    for wrong in (0, 65536, "12-bit"):
        with pytest.raises(ValueError, match="sixteen_bit"):
            source(photographs, sixteen_bit=wrong)
