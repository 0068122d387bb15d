"""The dataset descriptor: what it names is there, and the same bytes have the same hash."""

import json
import pickle

import numpy as np
import pytest

from gen4det.core.errors import InputError
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, load_dataset, write_dataset
from gen4det.data.images import ShardWriter, encode_image


@pytest.fixture
def folder(tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 3, "name": "cup"}],
    }
    splits = {}
    for value, split in enumerate(("train", "val")):
        write_annotations(tmp_path / f"{split}.json", data)
        with ShardWriter(tmp_path / f"{split}.zip") as writer:
            writer.add("a.png", encode_image(np.full((6, 8, 3), value, np.uint8), "png"))
        splits[split] = SplitDescriptor(annotations=f"{split}.json", images=f"{split}.zip")
    write_dataset(tmp_path / "dataset.json", DatasetDescriptor(name="lvis", format="lvis", **splits))
    return tmp_path


def test_descriptor_leads_to_annotations_and_images(folder, monkeypatch):
    monkeypatch.chdir("/")
    dataset = load_dataset(folder / "dataset.json")
    assert (dataset.name, dataset.format) == ("lvis", "lvis")
    assert dataset.val.load()["categories"] == [{"id": 3, "name": "cup"}]
    assert dataset.val.images.image("a.png").mean() == 1
    dataset.train.load()["images"].clear()
    assert len(dataset.train.load()["images"]) == 1  # every caller has its own


def test_categories_are_the_descriptors_and_without_it_the_annotations(folder):
    path = folder / "dataset.json"
    assert load_dataset(path).categories == [{"id": 3, "name": "cup"}]
    values = json.loads(path.read_text())
    described = [{"id": 3, "name": "cup", "def": None, "synonyms": ["mug"]}]
    write_dataset(path, DatasetDescriptor.model_validate(values | {"categories": described}))
    (folder / "train.json").write_text("not to be read")
    dataset = load_dataset(path)
    assert dataset.categories == dataset.declared == described
    with pytest.raises(InputError, match="train.json"):
        dataset.train.load()


def test_splits_travel_to_workers(folder):
    split = load_dataset(folder / "dataset.json").train
    assert split.images.size("a.png") == (8, 6)
    assert pickle.loads(pickle.dumps(split)).images.image("a.png").shape == (6, 8, 3)


def test_descriptor_may_name_absolute_paths(folder, tmp_path):
    values = json.loads((folder / "dataset.json").read_text())
    values["train"]["images"] = str(folder / "val.zip")
    (tmp_path / "own.json").write_text(json.dumps(values))
    assert load_dataset(tmp_path / "own.json").train.images.image("a.png").mean() == 1


def test_hash_follows_annotations_and_images(folder):
    first = load_dataset(folder / "dataset.json")
    assert first.train.hash == load_dataset(folder / "dataset.json").train.hash
    assert first.train.hash != first.val.hash  # same annotations, other images
    data = first.train.load()
    data["annotations"][0]["bbox"] = [1, 1, 2, 3]
    write_annotations(folder / "train.json", data)
    assert load_dataset(folder / "dataset.json").train.hash != first.train.hash


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": "voc"}, "format"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"train": {"annotations": "train.json"}}, "train.images: required key is missing"),
        ({"train": {"annotations": "nope.json", "images": "train.zip"}}, "train: no such file or folder: "),
        ({"val": {"annotations": "val.json", "images": "nope"}}, "val: no such file or folder: "),
    ],
)
def test_bad_descriptor_is_refused_in_one_line(folder, change, expected):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as error:
        load_dataset(path)
    assert str(error.value).startswith(f"{path}: ") and expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", '{"name": '])
def test_what_is_no_descriptor_is_refused(tmp_path, content):
    path = tmp_path / "dataset.json"
    with pytest.raises(InputError, match="No such file"):
        load_dataset(path)
    path.write_text(content)
    with pytest.raises(InputError, match="dataset.json: "):
        load_dataset(path)
