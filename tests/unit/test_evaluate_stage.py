"""The evaluate stage: a real detector file, real images, the real protocol."""

import json

import numpy as np
import pytest

from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.masks import mask_to_rle
from gen4det.evaluation.average_precision import average_precision
from gen4det.stages import evaluate

REPOSITORY = PACKAGE_ROOT.parent
CATEGORIES = [{"id": 4, "name": "cup"}, {"id": 9, "name": "key"}]


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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 11), ("val", 3)):
        images, annotations = [], []
        with ShardWriter(folder / f"{split}.zip") as writer:
            for index in range(count):
                pixels = np.full((64, 64, 3), 40, np.uint8)
                mask = np.zeros((64, 64), bool)
                mask[10:40, 5 + index : 35 + index] = True
                pixels[mask] = 220
                writer.add(f"{index}.png", encode_image(pixels, "png"))
                category = 4 if index < 2 else 9
                others = [c["id"] for c in CATEGORIES if c["id"] != category]
                images.append({"id": index + 1, "file_name": f"{index}.png", "height": 64, "width": 64})
                images[-1] |= {"neg_category_ids": others, "not_exhaustive_category_ids": []}
                annotations.append({"id": index + 1, "image_id": index + 1, "category_id": category})
                annotations[-1] |= {"bbox": [5.0 + index, 10.0, 30.0, 30.0], "area": 900.0}
                annotations[-1] |= {"segmentation": mask_to_rle(mask)}
        data = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (folder / f"{split}.json").write_text(json.dumps(data))
    descriptor = {"name": "lvis", "format": "lvis"}
    descriptor |= {
        split: {"annotations": f"{split}.json", "images": f"{split}.zip"} for split in ("train", "val")
    }
    (folder / "dataset.json").write_text(json.dumps(descriptor))
    return folder / "dataset.json"


def run_stage(monkeypatch, output, dataset, weights, *more, settings="{}"):
    arguments = ["--settings", settings, "--dataset", str(dataset), "--weights", str(weights)]
    monkeypatch.setattr(
        "sys.argv", ["evaluate", *arguments, "--output", str(output), "--device", "cpu", *more]
    )
    evaluate.main()
    return json.loads(output.read_text())


@pytest.mark.slow
def test_metrics_are_those_of_the_predictions(tmp_path, monkeypatch, dataset, weights):
    output, predictions = tmp_path / "metrics.json", tmp_path / "predictions.json"
    settings = '{"settings": {"evaluation": {"max_per_image": 40}}, "code": "0"}'
    metrics = run_stage(
        monkeypatch, output, dataset, weights, "--predictions", str(predictions), settings=settings
    )
    detections = json.loads(predictions.read_text())
    assert detections and {d["category_id"] for d in detections} <= {4, 9}
    assert all(sum(d["image_id"] == image for d in detections) <= 40 for image in (1, 2, 3))

    truth = load_dataset(dataset).val.load()
    again = average_precision(truth, detections, protocol="lvis")
    assert metrics["box"] == again["box"] | {"APr": metrics["box"]["AP"]}  # both categories are rare
    assert metrics["mask"]["AP"] == again["mask"]["AP"] is not None
    assert [entry["images_train"] for entry in metrics["per_category"]] == [2, 9]
    assert [entry["instances_val"] for entry in metrics["per_category"]] == [2, 1]
    assert metrics["validation"]["protocol"] == "lvis" and metrics["validation"]["max_per_image"] == 40
    record = json.loads((tmp_path / "metrics.json.record.json").read_text())
    assert record["device"] == "cpu" and record["images"] == 3 and str(weights) in record["inputs"]

    second = run_stage(monkeypatch, tmp_path / "again.json", dataset, weights, settings=settings)
    assert second == metrics


def test_unusable_weights_are_one_line_and_leave_nothing(tmp_path, monkeypatch, dataset):
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(b"no weights")
    output = tmp_path / "metrics.json"
    with pytest.raises(InputError, match="weights.safetensors"):
        run_stage(monkeypatch, output, dataset, broken)
    assert not output.exists() and not output.with_name("metrics.json.record.json").exists()
