"""MosaicFusion through the command line: plan, generate, filter, with a tiny random Stable Diffusion."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gen4det.core.provenance import write_json
from gen4det.data.datasets import DatasetDescriptor, write_dataset
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.label_sets import as_dictionaries
from gen4det.data.manifests import read_manifest
from gen4det.data.masks import area_of_rle, box_of_rle
from gen4det.data.shards import load_shard, load_synthetic
from gen4det.stages import filter as filter_stage
from gen4det.stages import generate, plan
from patience import patience

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with ShardWriter(folder / "train.zip") as writer:
        writer.add("1.png", encode_image(np.zeros((8, 8, 3), np.uint8), "png"))
    names = ("cup", "fish", "spatula", "table")
    categories = [
        {"id": number, "name": name, "def": f"a {name} for the table", "frequency": "rrcf"[number - 1]}
        for number, name in enumerate(names, start=1)
    ]
    image = {"id": 1, "file_name": "1.png", "height": 8, "width": 8}
    write_json(folder / "train.json", {"images": [image], "annotations": [], "categories": categories})
    split = {"annotations": "train.json", "images": "train.zip"}
    descriptor = {"name": "toy", "format": "lvis", "train": split, "val": split}
    write_dataset(folder / "dataset.json", DatasetDescriptor.model_validate(descriptor))
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def settings(tiny_pipeline_folder) -> str:
    engine = {
        "method": "mosaicfusion",
        "images_per_category": 3,
        "region_height": 64,
        "region_width": 64,
        "overlap_height": 16,
        "overlap_width": 16,
        "denoising": {"scheduler": "pndm", "steps": 2, "guidance": 7.5},
        "batch_size": 2,
        "canvases_per_geometry": 2,
        "drop_image": False,
        "masks": {"solver": {"sigma_spatial": 4}},
    }
    foundation = {"diffusion": {"path": str(tiny_pipeline_folder)}}
    return json.dumps({"engine": engine, "foundation": foundation, "run_seed": 5})


@pytest.fixture(scope="module")
def manifest(dataset, settings, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "manifest.jsonl"
    here(plan, "--settings", settings, "--dataset", dataset, "--output", path)
    return path


def here(stage, *arguments) -> None:
    """Run a stage's command line in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [stage.__name__, *map(str, arguments)])
        stage.main()


def arguments(settings, dataset, manifest, folder, shard=0, of=1) -> list[str]:
    options = {
        "settings": settings, "dataset": dataset, "manifest": manifest, "shard": shard, "shards": of,
        "output": folder / f"{shard:05d}", "device": "cpu",
    }  # fmt: skip
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def whole(settings, dataset, manifest, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "shards"
    here(generate, *arguments(settings, dataset, manifest, folder))
    return folder


def chosen(dataset, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Annotations and rejected labels without the names of the zips, and all images."""
    files = sorted(folder.glob("0????.arrow"))
    options = ["--dataset", dataset, "--output", folder.parent / "set.json"]
    here(filter_stage, "--settings", "{}", *options, "--shards", *files)
    offered, rejected = as_dictionaries(folder.parent / "set.json")
    text = json.dumps([offered | {"info": None}, rejected | {"info": None}], sort_keys=True)
    for file in files:
        text = text.replace(file.with_suffix(".zip").name + "/", "")
    store = ImageStore(folder)
    return text, {name.split("/")[1]: store.read(name) for name in store.names()}


def test_planning_in_another_process_gives_the_same_manifest(settings, dataset, manifest, tmp_path):
    again = tmp_path / "manifest.jsonl"
    command = [sys.executable, "-m", "gen4det.stages.plan", "--settings", settings]
    subprocess.run([*command, "--dataset", str(dataset), "--output", str(again)], check=True)
    assert again.read_bytes() == manifest.read_bytes()
    assert len(read_manifest(manifest)) == 2 * 3


def test_every_region_is_labelled_or_rejected(dataset, manifest, whole):
    chosen(dataset, whole)
    data, images = load_synthetic(whole.parent / "set.json")
    rejected = as_dictionaries(whole.parent / "set.json")[1]["rejected"]
    assert data["annotations"], "the tiny model's attention should make some masks"
    asked = sorted(
        (1_000_000 + row["index"], region["category_id"])
        for row in read_manifest(manifest)
        for region in row["regions"]
    )
    answered = data["annotations"] + rejected
    assert sorted((label["image_id"], label["category_id"]) for label in answered) == asked
    for annotation in data["annotations"]:
        assert annotation["bbox"] == box_of_rle(annotation["segmentation"])
        assert annotation["area"] == area_of_rle(annotation["segmentation"])
    for image in data["images"]:
        assert images.image(image["file_name"]).shape == (128, 128, 3)


def test_three_shards_give_the_same_data_as_one(settings, dataset, manifest, whole, tmp_path):
    folder = tmp_path / "shards"
    for shard in (1, 2, 0):
        here(generate, *arguments(settings, dataset, manifest, folder, shard, 3))
    assert chosen(dataset, folder) == chosen(dataset, whole)


def test_killed_and_resumed_with_other_workers_gives_the_same_files(
    settings, dataset, manifest, whole, tmp_path
):
    command = arguments(settings, dataset, manifest, tmp_path)
    process = subprocess.Popen([sys.executable, "-m", "gen4det.stages.generate", *command])
    saved = tmp_path / "00000.work"
    deadline = time.monotonic() + patience(600)
    while not list(saved.glob("*.zip")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(saved.glob("*.zip")) and not (tmp_path / "00000.arrow").exists()
    here(generate, *command, "--workers", 1)
    for name in ("00000.zip", "00000.arrow"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert load_shard(tmp_path / "00000.arrow")["images"]
