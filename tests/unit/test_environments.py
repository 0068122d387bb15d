"""Each stage's whole way with nothing but the packages of its own environment.

Here are those ways that the workflow tests do not take; these run under the same guard.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from public_data import voc_archive
from test_filter_stage import write_shards, write_toy_dataset

from environments import ROOT, hidden, stages, write_guard
from gen4det.data.label_sets import as_dictionaries
from gen4det.engines.base import known_methods, settings_class

BY_HAND = {"annotate", "check_run"}
"""Stages that no rule calls."""


def plans_from_data_alone(method: str) -> bool:
    """Whether an engine plans without what a fit or a training has made; others plan in their own tests."""
    draw = settings_class(method).checked_steps().draw
    return not draw.reads and not draw.detectors


@pytest.fixture(scope="module")
def guard(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    write_guard(folder)
    return folder


def run(guard: Path, stage: str, settings: dict, *options: str | Path) -> str:
    """Run a stage as a job of its rule does; returns what it said."""
    command = [
        sys.executable,
        "-m",
        f"gen4det.stages.{stage}",
        "--settings",
        json.dumps({"settings": settings}),
    ]
    paths = os.pathsep.join((str(guard), str(ROOT / "workflow")))
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([*command, *map(str, options)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_stage_has_an_environment():
    programs = {path.stem for path in (ROOT / "workflow/gen4det/stages").glob("[a-z]*.py")}
    assert {stage.rpartition(".")[2] for stage in stages()} == programs - BY_HAND


def test_the_guard_hides_what_is_not_in_the_environment(guard):
    """A package that is hidden counts as not installed, whoever asks."""
    modules, packages = hidden("analyse")
    assert {"torch", "diffusers", "mmdet", "snakemake"} <= set(modules) and "cv2" not in modules
    assert {"torch", "onedl-mmcv"} <= set(packages) and "numpy" not in packages
    assert {"snakemake", "pytest"} <= set(hidden("compute")[0]) and "torch" not in hidden("compute")[0]
    code = (
        "import importlib.metadata as m, importlib.util as u\n"
        "assert u.find_spec('torch') is None and u.find_spec('numpy') and u.find_spec('gen4det')\n"
        "try: m.version('torch')\n"
        "except m.PackageNotFoundError: print(m.version('numpy'))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(guard), str(ROOT / "workflow")))}
    command = [sys.executable, "-c", code, "gen4det.stages.filter"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_filter(guard, tmp_path, segmentation):
    dataset, shards = write_toy_dataset(tmp_path, "lvis"), write_shards(tmp_path / "shards")
    run(
        guard, "filter", {"filter": {"segmentation": segmentation}},
        "--dataset", dataset, "--shards", *shards,
        "--output", tmp_path / "set/set.json",
    )  # fmt: skip
    run(
        guard, "filter_page", {}, "--synthetic", tmp_path / "set/set.json",
        "--fractions", tmp_path / "set/filter.csv", "--output", tmp_path / "set/filter.pdf",
    )  # fmt: skip
    offered, _ = as_dictionaries(tmp_path / "set/set.json")
    exported = offered["annotations"][0]["segmentation"]
    assert isinstance(exported, dict if segmentation == "rle" else list)


def test_render_and_subset(guard, tmp_path):
    settings = {"source": "miniature", "edition": "coco", "train_images": 24, "val_images": 2}
    run(guard, "render", settings, "--output", tmp_path / "whole/dataset.json")
    run(
        guard, "subset", {"source": "subset", "of": "whole", "share": 0.5},
        "--whole", tmp_path / "whole/dataset.json", "--output", tmp_path / "half/dataset.json",
    )  # fmt: skip


@pytest.mark.parametrize("method", filter(plans_from_data_alone, known_methods()))
def test_plan(guard, tmp_path, method):
    """No torch is there: of transformers the tokenizers are enough."""
    dataset = write_toy_dataset(tmp_path, "lvis")
    models = {
        key: {"path": str(ROOT / "resources/miniature" / folder)}
        for key, folder in (("diffusion", "stable-diffusion"), ("inpainting", "gligen-inpainting"))
    }
    output, reads = tmp_path / "manifest.jsonl", []
    if settings_class(method).checked_steps().draw.manifest_of is not None:  # it plans after another engine
        other = tmp_path / "other.jsonl"
        run(
            guard, "plan", {"engine": {"method": "mosaicfusion"}, "foundation": models},
            "--dataset", dataset, "--output", other,
        )  # fmt: skip
        reads = ["--reads", f"manifest={other}"]
    settings = {"engine": {"method": method}, "foundation": models}
    run(guard, "plan", settings, "--dataset", dataset, *reads, "--output", output)
    assert output.read_text().count("\n") > 1
    packages = json.loads(Path(f"{output}.record.json").read_text())["packages"]
    assert "torch" not in packages and ("transformers" in packages or reads)


def test_photographs(guard, tmp_path):
    write_toy_dataset(tmp_path, "coco")
    split = {"annotations": str(tmp_path / "train.json"), "images": str(tmp_path / "train.zip")}
    settings = {"source": "photographs", "format": "coco", "train": split, "val": split}
    settings["allow_empty_categories"] = True
    run(guard, "photographs", settings, "--output", tmp_path / "out/dataset.json")


def test_download(guard, tmp_path, file_server):
    registry = yaml.safe_load((ROOT / "resources/data_registry.yaml").read_text())
    parts = {"voc-2007-trainval": ("2007", "trainval"), "voc-2007-test": ("2007", "test")}
    parts["voc-2012-trainval"] = ("2012", "trainval")
    for name, (year, image_set) in parts.items():
        file = registry["files"][name]
        archive = file["url"].rpartition("/")[2]
        file_server.files[archive] = voc_archive(year, image_set, all_categories=image_set == "trainval")
        file["url"], file["bytes"] = file_server.url(archive), None
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(registry))
    settings = {"source": "download", "dataset": "voc", "registry": str(tmp_path / "registry.yaml")}
    settings["folder"] = str(tmp_path / "downloads")
    run(guard, "download", settings, "--output", tmp_path / "data/voc/dataset.json")


def test_download_of_a_model(guard, tmp_path, file_server):
    about = {"version": "1", "licence": "a licence", "citation": "somebody"}
    file_server.files["w.pth"] = b"weights"
    weights = {"b": about | {"url": file_server.url("w.pth"), "bytes": None, "sha256": None}}
    registry = tmp_path / "registry.yaml"
    registry.write_text(yaml.safe_dump({"files": {}, "datasets": {}, "models": {}, "weights": weights}))
    settings = {"name": "b", "registry": str(registry), "folder": str(tmp_path / "d")}
    run(guard, "download_model", settings, "--output", tmp_path / "d/models/b/download.json")
