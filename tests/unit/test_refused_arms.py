"""An arm whose synthetic set is empty cannot be trained, and does not take the table of the others."""

import csv
import json
from pathlib import Path

import pytest
from test_filter_stage import write_shards, write_toy_dataset

from gen4det.core.errors import RefusedInput
from gen4det.core.provenance import PACKAGE_ROOT
from gen4det.detection.weights import load_detector
from gen4det.evaluation.settings import METRICS
from gen4det.stages import filter, loss_curve, measure, plot, predict, train

CONFIG = PACKAGE_ROOT.parent / "config/detectors/miniature_mask_rcnn.py"
STUDY = {
    "title": "T",
    "scale": "test",
    "arms": {"real": {}, "drawn": {}},
    "metrics": ["box_AP"],
    "seeds": [0],
}


def run_stage(monkeypatch, stage, settings: dict, *arguments: object) -> None:
    call = ["stage", *(("table",) if stage is plot else ()), "--settings", json.dumps({"settings": settings})]
    monkeypatch.setattr("sys.argv", [*call, *map(str, arguments)])
    stage.main()


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """What the training of an arm writes after a filter that kept nothing."""
    dataset = write_toy_dataset(tmp_path / "data", "lvis")
    shards, folder = write_shards(tmp_path / "drawn" / "shards"), tmp_path / "drawn"
    made, weights = folder / "set.json", tmp_path / "arm" / "weights.safetensors"
    run_stage(
        monkeypatch, filter, {"filter": {"min_box_side": 60}},
        "--dataset", dataset, "--shards", *shards, "--output", made,
    )  # fmt: skip
    run_stage(
        monkeypatch, train, {"detector": {"config": str(CONFIG)}, "seed": 0},
        "--dataset", dataset, "--synthetic", made, "--output", weights, "--device", "cpu",
    )  # fmt: skip
    return weights


def test_one_refused_arm_does_not_take_the_table_of_the_others(weights, tmp_path, monkeypatch):
    dataset, predictions = tmp_path / "data" / "dataset.json", weights.with_name("predictions.npz")
    metrics = weights.with_name("metrics.json")
    reason = "all 10 labels of drawn were rejected: "
    run_stage(
        monkeypatch, predict, {}, "--dataset", dataset, "--weights", weights, "--output", predictions,
        "--device", "cpu",
    )  # fmt: skip
    run_stage(
        monkeypatch, measure, {}, "--dataset", dataset, "--predictions", predictions, "--output", metrics
    )
    assert json.loads(metrics.read_text())["refused"].startswith(reason)
    for file in (weights, predictions, metrics):
        assert json.loads(Path(f"{file}.record.json").read_text())["refused"].startswith(reason)

    values = dict.fromkeys(METRICS, 10.0)
    real = tmp_path / "real.json"
    real.write_text(json.dumps({"box": values, "mask": values, "validation": {"dataset": "lvis"}}))
    output = tmp_path / "table.csv"
    run_stage(
        monkeypatch, plot, STUDY, "--metrics", f"real:0={real}", f"drawn:0={metrics}", "--output", output
    )
    lines = {line["arm"]: line for line in csv.DictReader(output.open())}
    assert lines["real"]["box_AP_mean"] == "10.0000" and lines["real"]["seeds"] == "1/1"
    assert lines["drawn"]["box_AP_mean"] == lines["drawn"]["box_AP_delta"] == ""
    assert lines["drawn"]["seeds"].startswith(f"0/1 (missing: 0): {reason}")
    assert f"- drawn: not trained: {reason}" in output.with_suffix(".md").read_text()


def test_the_losses_of_a_refused_training_say_so(weights, tmp_path, monkeypatch):
    losses, output = weights.with_name("losses.csv"), tmp_path / "losses.png"
    run_stage(monkeypatch, loss_curve, {}, "--losses", losses, "--output", output)
    assert output.read_bytes()[:4] == b"\x89PNG"


def test_whoever_needs_the_detector_itself_is_told_why_there_is_none(weights):
    with pytest.raises(RefusedInput, match=r"weights\.safetensors: there is none: all 10 labels of drawn"):
        load_detector(weights)
