"""Attributes out of fold: each real image is judged by a detector that has not seen it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_detector import tiny_config, tiny_dataset

from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT, write_json
from gen4det.core.yaml_files import read_yaml
from gen4det.data.datasets import load_dataset
from gen4det.detection.settings import DetectorSettings
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import Inputs, engine_settings
from gen4det.engines.detdiffusion.fit_attributes import Fit
from gen4det.engines.detdiffusion.out_of_fold import fold_of, out_of_fold
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project
from gen4det.training.stop import Deadline

ROOT = PACKAGE_ROOT.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    (folder / "data").mkdir()
    detector = DetectorSettings(config=str(tiny_config(folder)), repeat_threshold=0)
    return SimpleNamespace(folder=folder, dataset=tiny_dataset(folder / "data"), detector=detector)


def test_every_image_is_looked_at_by_the_detector_that_was_trained_without_it(world):
    found = out_of_fold(world.dataset, world.detector, 2, 0, world.folder / "work")
    images = [image["id"] for image in world.dataset.train.load()["images"]]
    folds = {fold: {it for it in images if fold_of(it, 2, 0) == fold} for fold in (0, 1)}
    assert all(folds.values()) and folds[0] | folds[1] == set(images)
    for fold in (0, 1):
        part = load_dataset(world.folder / f"work/fold{fold}/dataset.json").train
        assert {image["id"] for image in part.load()["images"]} == folds[1 - fold]
        assert {label["image_id"] for label in part.load()["annotations"]} <= folds[1 - fold]
        assert part.images.exists(part.load()["images"][0]["file_name"])
    assert set(map(int, found)) <= set(images)
    times = [path.stat().st_mtime_ns for path in sorted(world.folder.glob("work/fold*/weights.safetensors"))]
    assert out_of_fold(world.dataset, world.detector, 2, 0, world.folder / "work") == found
    assert times == [
        path.stat().st_mtime_ns for path in sorted(world.folder.glob("work/fold*/weights.safetensors"))
    ]


def test_attributes_come_from_the_folds_where_they_are_asked_for(world):
    split = world.dataset.train.hash
    labels = world.dataset.train.load()["annotations"]
    seen = {}
    for label in labels:  # who has seen the images finds everything
        seen.setdefault(str(label["image_id"]), []).append([label["category_id"], 0.99, *label["bbox"]])
    detections = world.folder / "seen.json"
    write_json(detections, {"of": {"split": split}, "split": split, "detector": "d", "detections": seen})
    shares = {}
    for folds in (1, 2):
        attributes = {"folds": folds, "fold_detector": None if folds == 1 else world.detector.model_dump()}
        values = {"method": "detdiffusion", "detector": {"detector": "any"}, "attributes": attributes}
        settings = engine_settings("detdiffusion", values, source="test")
        inputs = Inputs(world.dataset, detections={"dataset": [detections]})
        output = world.folder / f"attributes{folds}"
        with Deadline() as stop:
            facts = Fit(settings, FoundationSettings(), 0, inputs).fit(
                world.folder / "work", {}, output, stop
            )
        table = json.loads((output / "attributes.json").read_text())
        assert len(table["attributes"]) == len(labels) and table["settings"]["folds"] == folds
        shares[folds] = facts["easy_share"]
    assert shares[1] == 1 and shares[2] < 0.5  # six iterations have taught nothing


def test_folds_need_a_detector_and_its_files_are_in_the_parameter_of_the_step(tmp_path):
    with pytest.raises(InputError, match="folds: more than one need fold_detector"):
        engine_settings("detdiffusion", {"method": "detdiffusion", "attributes": {"folds": 3}}, source="test")
    values = read_yaml(ROOT / "config/config.yaml") | {"studies": ["detdiffusion_trainability"]}
    detector = {"config": "config/detectors/miniature_faster_rcnn.py"}
    wildcards = SimpleNamespace(dataset="coco", engine="detdiffusion", step="attributes")
    params = []
    for attributes in ({}, {"folds": 2, "fold_detector": detector}):
        engines = values["engines"]
        own = engines["detdiffusion"] | {"attributes": attributes}
        changed = values | {"engines": engines | {"detdiffusion": own}}
        params.append(json.loads(Jobs(load_project(changed, source="c", root=ROOT)).fit(wildcards)))
    assert "files" not in params[0]
    assert {Path(file).name for file in params[1]["files"]} == {
        "miniature_faster_rcnn.py", "miniature_mask_rcnn.py",
    }  # fmt: skip
