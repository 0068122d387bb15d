"""The stages predict and measure: a real detector file, real images, the real protocol."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT, import_closure
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.masks import mask_to_rle
from gen4det.evaluation.average_precision import average_precision
from gen4det.evaluation.predictions import (
    Predictions,
    images_identity,
    read_predictions,
    write_predictions,
)
from gen4det.stages import measure, predict

REPOSITORY = PACKAGE_ROOT.parent
CATEGORIES = [{"id": 4, "name": "cup"}, {"id": 9, "name": "door key"}]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained detector, as the train stage writes them."""
    import torch

    from gen4det.detection.detectors import build_model, load_config
    from gen4det.detection.weights import save_weights

    torch.manual_seed(0)
    config = load_config(REPOSITORY / "config/detectors/miniature_mask_rcnn.py", classes=len(CATEGORIES))
    path = tmp_path_factory.mktemp("real") / "weights.safetensors"
    save_weights(
        path,
        build_model(config.model).state_dict(),
        model=config.model,
        test_pipeline=config.test_pipeline,
        categories=CATEGORIES,
    )
    return path


def write_data(folder, categories):
    """A data set of 11 and 3 images with an object each, of the first category or of the last."""
    ids = [category["id"] for category in categories]
    for split, count in (("train", 11), ("val", 3)):
        images, annotations = [], []
        with ShardWriter(folder / f"{split}.zip") as writer:
            for index in range(count):
                pixels = np.full((64, 64, 3), 40, np.uint8)
                mask = np.zeros((64, 64), bool)
                mask[10:40, 5 + index : 35 + index] = True
                pixels[mask] = 220
                writer.add(f"{index}.png", encode_image(pixels, "png"))
                category = ids[0] if index < 2 else ids[-1]
                others = [other for other in ids if other != category]
                images.append({"id": index + 1, "file_name": f"{index}.png", "height": 64, "width": 64})
                images[-1] |= {"neg_category_ids": others, "not_exhaustive_category_ids": []}
                annotations.append({"id": index + 1, "image_id": index + 1, "category_id": category})
                annotations[-1] |= {"bbox": [5.0 + index, 10.0, 30.0, 30.0], "area": 900.0}
                annotations[-1] |= {"segmentation": mask_to_rle(mask)}
        data = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(data))
    descriptor = {"name": "lvis", "format": "lvis"}
    descriptor |= {
        split: {"annotations": f"{split}.json", "images": f"{split}.zip"} for split in ("train", "val")
    }
    (folder / "dataset.json").write_text(json.dumps(descriptor))
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), CATEGORIES)


def run_stage(monkeypatch, stage, *arguments, settings=None):
    call = ["stage", "--settings", json.dumps({"settings": settings or {}}), *map(str, arguments)]
    monkeypatch.setattr("sys.argv", call)
    stage.main()


def run_predict(monkeypatch, output, dataset, weights, settings=None):
    options = ("--dataset", dataset, "--weights", weights, "--output", output, "--device", "cpu")
    run_stage(monkeypatch, predict, *options, settings=settings)
    return read_predictions(output)


def run_measure(monkeypatch, output, dataset, predictions, settings=None):
    options = ("--dataset", dataset, "--predictions", predictions, "--output", output)
    run_stage(monkeypatch, measure, *options, settings=settings)
    return json.loads(output.read_text())


def test_metrics_are_those_of_the_predictions(tmp_path, monkeypatch, dataset, weights):
    from gen4det.detection.inference import predict as look

    file, output = tmp_path / "predictions.npz", tmp_path / "metrics.json"
    found = run_predict(monkeypatch, file, dataset, weights, {"max_per_image": 40})
    images = load_dataset(dataset).val
    truth = images.load()
    assert found.detections == look(weights, images.images, truth["images"], max_per_image=40)
    assert found.detections and {d["category_id"] for d in found.detections} <= {4, 9}
    assert all(sum(d["image_id"] == image for d in found.detections) <= 40 for image in (1, 2, 3))
    assert found.about["categories"] == [4, 9] and found.about["max_per_image"] == 40

    metrics = run_measure(monkeypatch, output, dataset, file)
    again = average_precision(truth, found.detections, protocol="lvis")
    assert metrics["box"] == again["box"] | {"APr": metrics["box"]["AP"]}  # both categories are rare
    assert metrics["mask"]["AP"] == again["mask"]["AP"] is not None
    assert [entry["images_train"] for entry in metrics["per_category"]] == [2, 9]
    assert [entry["instances_val"] for entry in metrics["per_category"]] == [2, 1]
    assert metrics["validation"]["protocol"] == "lvis" and metrics["validation"]["max_per_image"] == 40
    assert metrics["validation"]["left_out"] == []
    record = json.loads((tmp_path / "metrics.json.record.json").read_text())
    assert record["images"] == 3 and str(file) in record["inputs"]
    record = json.loads((tmp_path / "predictions.npz.record.json").read_text())
    assert record["device"] == "cpu" and record["images"] == 3 and str(weights) in record["inputs"]

    second = tmp_path / "again.npz"
    run_predict(monkeypatch, second, dataset, weights, {"max_per_image": 40})
    assert second.read_bytes() == file.read_bytes()
    assert run_measure(monkeypatch, tmp_path / "again.json", dataset, second) == metrics


def test_a_changed_measure_measures_and_predicts_nothing():
    """What is measured, and how, is not in the code of predictions; nor is a model in that of measures."""
    predicting = import_closure("gen4det.stages.predict")
    measures = {name for name in import_closure("gen4det.stages.measure") if "evaluation" in name}
    shared = {f"gen4det.evaluation{part}" for part in (".prediction_settings", ".predictions")}
    assert measures & set(predicting) == shared and "gen4det.evaluation.average_precision" in measures


def test_measuring_imports_no_torch():
    script = (
        "import sys, gen4det.stages.measure; print({'torch', 'mmdet', 'transformers'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_unusable_weights_are_one_line_and_leave_nothing(tmp_path, monkeypatch, dataset):
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"no weights")
    output = tmp_path / "predictions.npz"
    with pytest.raises(InputError, match="weights.safetensors"):
        run_predict(monkeypatch, output, dataset, broken)
    assert not output.exists() and not output.with_name("predictions.npz.record.json").exists()


# --- other categories -----------------------------------------------------------------------------------


@pytest.fixture
def unused_gpu(monkeypatch):
    """Fails the test if an image is looked at."""

    def called(*_, **__):
        raise AssertionError("predicted before the categories were compared")

    monkeypatch.setattr("gen4det.detection.inference.predict", called)


@pytest.mark.parametrize(
    ("categories", "partial", "message"),
    [
        ([{"id": 4, "name": "cup"}], False, r"weights\.safetensors: .* does not have: 'door key'; train"),
        ([*CATEGORIES, {"id": 1, "name": "hat"}], False, r"does not know categories .*: 'hat'; train it"),
        ([{"id": 4, "name": "hat"}], True, r"no category of the data set is known .*: 'hat'"),
    ],
)
def test_other_categories_are_found_before_the_prediction(
    tmp_path, monkeypatch, weights, unused_gpu, categories, partial, message
):
    other = write_data(tmp_path, categories)
    with pytest.raises(InputError, match=message):
        run_predict(monkeypatch, tmp_path / "p.npz", other, weights, {"partial": partial})


def test_another_data_set_is_measured_by_names_of_categories(tmp_path, monkeypatch, dataset, weights):
    """Other ids, another spelling, and a category that the detector does not know."""
    categories = [
        {"id": 70, "name": "Door_Key"},
        {"id": 2, "name": "hat"},
        {"id": 5, "name": "cup"},
    ]
    here = run_predict(monkeypatch, tmp_path / "own.npz", dataset, weights)
    own = run_measure(monkeypatch, tmp_path / "own.json", dataset, tmp_path / "own.npz")
    other = write_data(tmp_path, [categories[2], categories[1], categories[0]])
    there = run_predict(monkeypatch, tmp_path / "p.npz", other, weights, {"partial": True})
    assert there.detections == [d | {"category_id": {4: 5, 9: 70}[d["category_id"]]} for d in here.detections]
    assert there.about["categories"] == [5, 70]
    metrics = run_measure(monkeypatch, tmp_path / "metrics.json", other, tmp_path / "p.npz")
    assert metrics["validation"]["left_out"] == ["hat"]
    assert [entry["name"] for entry in metrics["per_category"]] == ["cup", "Door_Key"]
    assert metrics["box"] == own["box"] and metrics["mask"] == own["mask"]


# --- the file -------------------------------------------------------------------------------------------


def test_what_is_stored_is_exact(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "predictions.npz"
    detections = [
        {"image_id": int(i), "category_id": 7, "bbox": rng.random(4).tolist(), "score": float(rng.random())}
        for i in (-3, 2**62, 5)
    ]
    for masks in (False, True):
        if masks:
            for detection in detections:
                detection["segmentation"] = mask_to_rle(rng.random((9, 13)) > 0.5)
        write_predictions(path, Predictions(detections, {"images": "x"}))
        assert read_predictions(path) == Predictions(detections, {"images": "x"})
    write_predictions(path, Predictions([], {}))
    assert read_predictions(path) == Predictions([], {})


def test_damaged_predictions_and_those_of_other_images_are_refused(tmp_path, monkeypatch, dataset):
    path, output = tmp_path / "predictions.npz", tmp_path / "metrics.json"
    with pytest.raises(InputError, match="No such file or directory; expected predictions"):
        read_predictions(path)
    records = load_dataset(dataset).val.load()["images"]
    about = {"images": images_identity(records[:2]), "max_per_image": 3, "categories": [4, 9]}
    write_predictions(path, Predictions([], about))
    with pytest.raises(InputError, match=r"of other images than those of .*dataset\.json; predict again"):
        run_measure(monkeypatch, output, dataset, path)
    content = path.read_bytes()
    for damaged in (content[:200], b"no archive", b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cut short, or not predictions"):
            run_measure(monkeypatch, output, dataset, path)
    assert not output.exists()
