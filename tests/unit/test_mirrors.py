"""Public data that are there already are used where they lie."""

import json
from pathlib import Path

import pytest
import yaml
from public_data import jpeg, lvis_file, names, refusal, tarred, voc_archive, zipped

from gen4det.data.archives import unpack
from gen4det.data.datasets import load_dataset
from gen4det.data.download_settings import DownloadDataset
from gen4det.data.images import image_name
from gen4det.data.public import prepare_public

REGISTRY = Path(__file__).resolve().parents[2] / "resources" / "data_registry.yaml"
TRAIN = {f"train2017/00000000000{i}.jpg": jpeg(i) for i in (1, 2, 3)}
VAL = {"val2017/000000000004.jpg": jpeg(4)}
LVIS = {
    "lvis_v1_train.json": lvis_file(["train2017/000000000001.jpg", "train2017/000000000002.jpg"]),
    "lvis_v1_val.json": lvis_file(["train2017/000000000003.jpg", "val2017/000000000004.jpg"]),
}


def coco_file(images: list[str]) -> bytes:
    """COCO names its images without a folder."""
    data = json.loads(lvis_file(images))
    for record, name in zip(data["images"], images, strict=True):
        record["file_name"] = Path(name).name
    return json.dumps(data).encode()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def prepare(file_server, tmp_path):
    """Prepares a data set of the shipped registry, from the server and a folder of the user's own."""
    registry = yaml.safe_load(REGISTRY.read_text())
    for file in registry["files"].values():
        file["url"], file["bytes"] = file_server.url(file["url"].rpartition("/")[2]), None
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(registry))

    def call(dataset: str, root: Path):
        settings = DownloadDataset(
            source="download", dataset=dataset, registry=str(tmp_path / "registry.yaml"),
            folder=str(tmp_path / "downloads"), root=str(root),
        )  # fmt: skip
        output = tmp_path / "data" / dataset / "dataset.json"
        prepare_public(dataset, settings, output, pause=0)
        return load_dataset(output)

    return call


@pytest.mark.parametrize("layout", ["", "coco/"])
def test_coco_is_used_where_it_lies(file_server, prepare, tmp_path, layout):
    annotations = {
        f"annotations/instances_{split}2017.json": coco_file(list(files))
        for split, files in (("train", TRAIN), ("val", VAL))
    }
    root = write(tmp_path / "mine", {layout + name: c for name, c in (TRAIN | VAL | annotations).items()})
    before = names(root)
    dataset = prepare("coco", root)
    assert file_server.requests == []
    assert dataset.train.images_path == root / layout / "train2017"
    assert dataset.val.images.image("000000000004.jpg").shape == (30, 40, 3)
    assert names(root) == before and names(tmp_path / "downloads") == [".lock"]  # nothing copied


def test_lvis_takes_the_images_of_a_coco_that_is_there_and_fetches_the_rest(file_server, prepare, tmp_path):
    file_server.files = {f"{name}.zip": zipped({name: content}) for name, content in LVIS.items()}
    root = write(tmp_path / "coco", TRAIN | VAL)
    dataset = prepare("lvis", root)
    assert {name for name, _ in file_server.requests} == file_server.files.keys()
    assert dataset.val.images_path == root
    for image in dataset.val.load()["images"]:
        assert dataset.val.images.image(image_name(image)).shape == (30, 40, 3)
    assert names(tmp_path / "downloads") == [
        ".lock", "downloads.lock.json", "lvis/lvis_v1_train.json", "lvis/lvis_v1_val.json",
    ]  # fmt: skip


@pytest.mark.parametrize("root", ["mine", "mine/VOCdevkit"])
def test_voc_is_used_as_its_archives_unpack_into_one_folder(file_server, prepare, tmp_path, root):
    for year, image_set in (("2007", "trainval"), ("2007", "test"), ("2012", "trainval")):
        archive = tmp_path / f"{year}-{image_set}.tar"
        archive.write_bytes(voc_archive(year, image_set, all_categories=image_set == "trainval"))
        unpack(archive, "VOCdevkit", tmp_path / image_set / year / "VOCdevkit")
        for name in names(tmp_path / image_set / year):
            content = (tmp_path / image_set / year / name).read_bytes()
            write(tmp_path / "mine", {name: content})
    dataset = prepare("voc", tmp_path / root)
    assert file_server.requests == []
    inside = "VOCdevkit/" if root == "mine" else ""
    assert [image_name(image) for image in dataset.train.load()["images"]] == [
        f"{inside}VOC{year}/JPEGImages/{name}.jpg" for year in (2007, 2012) for name in ("000001", "000007")
    ]
    for split in (dataset.train, dataset.val):
        assert split.images_path == tmp_path / root
        assert split.images.image(image_name(split.load()["images"][0])).shape == (30, 40, 3)


def test_a_folder_without_the_data_is_refused_before_anything_is_fetched(file_server, prepare, tmp_path):
    missing = tmp_path / "nowhere"
    assert refusal(prepare, "lvis", missing) == f"root: no such folder {missing}"
    missing.mkdir()
    message = refusal(prepare, "lvis", missing)
    assert message.startswith(f"root: {missing} holds nothing of this data set; looked for lvis_v1")
    assert file_server.requests == []


def test_images_in_two_places_are_refused(file_server, prepare, tmp_path):
    file_server.files = {f"{name}.zip": zipped({name: content}) for name, content in LVIS.items()}
    file_server.files["val2017.zip"] = zipped(VAL)
    message = refusal(prepare, "lvis", write(tmp_path / "half", TRAIN | LVIS))
    assert "holds coco-2017-train-images, but not coco-2017-val-images" in message
    apart = write(tmp_path / "apart", {f"coco/{name}": c for name, c in TRAIN.items()} | VAL | LVIS)
    assert "expected one folder of both" in refusal(prepare, "lvis", apart)
    assert file_server.requests == []


def test_archives_that_are_not_unpacked_yet_do_not_count(file_server, prepare, tmp_path):
    root = write(tmp_path / "mine", {"val2017.zip": zipped(VAL), "x.tar": tarred({"a": b"b"})})
    assert "holds nothing of this data set" in refusal(prepare, "coco", root)
