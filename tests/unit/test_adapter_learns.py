"""DiffusionEngine's acceptance check 10: an adapter learns on a frozen model, and mixes as it is told to."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_adapter import config_file, save_model
from tiny_detector import tiny_dataset, tiny_synthetic

from gen4det.detection.datasets import DetectionDataset
from gen4det.detection.detectors import load_config
from gen4det.detection.inference import predict
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.detection.training import batch_sampler, load_sources, train
from gen4det.evaluation.average_precision import average_precision
from gen4det.evaluation.settings import MeasureSettings


def test_check_10_an_adapter_overfits_eight_images_on_a_random_model(tmp_path):
    """The U-Net's weights are random; what is learned is in neck and heads."""
    dataset = tiny_dataset(tmp_path / "data", [[3], [7], [3, 7], [7, 3]] * 2)
    config = Path(config_file(tmp_path, "faster_rcnn"))
    config.write_text(
        config.read_text() + "max_iters = 600\noptim_wrapper = dict(_delete_=True, type='OptimWrapper', "
        "optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=10))\n"
    )
    model = save_model(tmp_path / "model")
    detector = DetectorSettings(config=str(config), diffusion={"path": str(model)}, iterations=120)
    output = tmp_path / "weights.safetensors"
    trained = train(TrainSettings(detector=detector), dataset, [], output, fingerprint={})
    assert trained.finished
    with open(tmp_path / "losses.csv") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert np.mean(losses[-3:]) <= 0.5 * np.mean(losses[:3])
    truth = dataset.train.load()
    first, again = (predict(output, dataset.train.images, truth["images"]) for _ in range(2))
    assert first == again, "the noise of an evaluation is fixed"
    truth["annotations"] = [{**a, "iscrowd": 0} for a in truth["annotations"]]
    found = average_precision(truth, first, protocol="coco", settings=MeasureSettings(kinds=("box",)))
    assert found["box"]["AP50"] >= 50


@pytest.mark.parametrize(
    ("changes", "share"),
    [({}, 36 / 60), ({"synthetic_batches": 0.2}, 0.2), ({"synthetic_batches": 0.5}, 0.5)],
)
def test_check_10_sets_are_sampled_by_size_or_as_asked(tmp_path, changes, share):
    dataset = tiny_dataset(tmp_path)
    (tmp_path / "drawn/shards").mkdir(parents=True)
    drawn = tiny_synthetic(tmp_path / "drawn", [[3], [7], [3, 7]] * 12)
    config = config_file(tmp_path, "faster_rcnn")
    settings = TrainSettings(detector=DetectorSettings(config=config, repeat_threshold=0, **changes))
    sources, categories = load_sources(dataset, [drawn], detector=settings.detector)
    pipeline = load_config(config, classes=3).train_pipeline
    data = DetectionDataset(sources, categories, pipeline, masks=False, keep_empty=False)
    counts: Counter[bool] = Counter()
    for _, batch in zip(range(4000), batch_sampler(data, settings, 2), strict=False):
        counts.update(bool(data.synthetic[draw.index]) for draw in batch)
    assert counts[True] / counts.total() == pytest.approx(share, abs=0.02)
