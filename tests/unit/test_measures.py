"""Measures of sets and of generators, against formulas and counts by hand."""

import json

import numpy as np
import pytest
from scipy.linalg import sqrtm

from filtered import write_filtered, write_shard
from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT
from gen4det.data.label_sets import as_dictionaries
from gen4det.evaluation.average_precision import average_precision
from gen4det.evaluation.measures.frechet import frechet_distance, image_features
from gen4det.evaluation.measures.layout import layout_average_precision
from gen4det.evaluation.measures.registry import MEASURES
from gen4det.evaluation.measures.synthetic_set import (
    AFTER_AGREEMENT,
    NOT_CONFIRMED,
    NOT_JUDGED,
    SPARE,
    synthetic_set_measures,
)
from gen4det.filters.agreement import LOW_IOU, LOW_SCORE, NO_MATCH, compact
from gen4det.filters.verdicts import ALONE, BEYOND, UNUSED
from gen4det.stages import measure_set

# --- registry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_is_there_and_documented(name):
    measure = MEASURES[name]
    assert callable(measure.function) and measure.function.__doc__
    text = (PACKAGE_ROOT.parent / "docs/metrics.md").read_text()
    assert not [value for value in measure.values if f"`{value}`" not in text]


# --- Frechet distance ---------------------------------------------------------------------------------


def test_the_frechet_distance_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    real, drawn = rng.normal(size=(400, 6)) @ mixing, rng.normal(1, 2, size=(300, 6))
    first, second = np.cov(real, rowvar=False), np.cov(drawn, rowvar=False)
    shift = real.mean(0) - drawn.mean(0)
    expected = shift @ shift + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(real, drawn) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(drawn, real) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, real + 3) == pytest.approx(9 * 6, rel=1e-9)


def test_of_one_feature_it_is_that_of_means_and_deviations():
    rng = np.random.default_rng(1)
    real, drawn = rng.normal(2, 3, (50, 1)), rng.normal(0, 1, (60, 1))
    expected = (real.mean() - drawn.mean()) ** 2 + (real.std(ddof=1) - drawn.std(ddof=1)) ** 2
    assert frechet_distance(real.astype(np.float32), drawn) == pytest.approx(expected, rel=1e-5)


def test_features_that_never_vary_are_no_obstacle():
    rng = np.random.default_rng(2)
    real, drawn = rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
    real[:, 1] = drawn[:, 1] = 0.5
    rest = frechet_distance(real[:, [0, 2, 3]], drawn[:, [0, 2, 3]])
    assert frechet_distance(real, drawn) == pytest.approx(rest, rel=1e-7)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((8, 8), (90, 8)), "8 real images for features of 8 numbers; at least 9 are needed"),
        (((90, 8), (3, 8)), "3 drawn images for features of 8 numbers"),
        (((90, 8), (90, 7)), r"features of shapes \(90, 8\) and \(90, 7\)"),
    ],
)
def test_too_few_images_and_other_encoders_are_refused(shapes, message):
    rng = np.random.default_rng(3)
    with pytest.raises(InputError, match=message):
        frechet_distance(*(rng.normal(size=shape) for shape in shapes))
    broken = rng.normal(size=(20, 2))
    broken[3] = np.nan
    with pytest.raises(InputError, match="drawn images that are not finite"):
        frechet_distance(rng.normal(size=(20, 2)), broken)


def test_features_come_from_the_encoder_batch_by_batch():
    images = [np.full((4, 4, 3), value, np.uint8) for value in range(5)]
    sizes = []

    def encoder(batch):
        sizes.append(len(batch))
        return np.array([[image.mean(), image.max()] for image in batch], np.float32)

    features = image_features(iter(images), encoder, batch_size=2)
    assert features.tolist() == [[v, v] for v in range(5)] and sizes == [2, 2, 1]
    with pytest.raises(InputError, match="no image"):
        image_features([], encoder)


# --- layout -------------------------------------------------------------------------------------------


def layout() -> dict:
    boxes = [(1, 1, [10.0, 10, 40, 40]), (1, 2, [60.0, 20, 30, 50]), (2, 1, [5.0, 5, 90, 90])]
    return {
        "images": [{"id": number, "height": 100, "width": 100} for number in (1, 2)],
        "annotations": [
            {"id": k, "image_id": image, "category_id": category, "bbox": box}
            for k, (image, category, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "key"}],
    }


def found_at(asked: dict, shift: float) -> list[dict]:
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9 - a["id"] / 10}
        | {"bbox": [a["bbox"][0] + shift, *a["bbox"][1:]]}
        for a in asked["annotations"]
    ]


def test_what_is_drawn_where_it_was_asked_for_is_100():
    asked = layout()
    assert layout_average_precision(asked, compact(found_at(asked, 0)))["AP"] == 100
    shifted = layout_average_precision(asked, compact(found_at(asked, 4)))
    assert shifted["AP50"] == 100 > shifted["AP"] > 50
    assert layout_average_precision(asked, {})["AP"] == 0


def test_layout_is_average_precision_with_labels_as_ground_truth():
    asked = layout()
    found = found_at(asked, 7)[1:]
    truth = asked | {
        "annotations": [a | {"area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0} for a in asked["annotations"]]
    }
    expected = average_precision(truth, found, protocol="coco")["box"]
    measured = layout_average_precision(asked, compact(found))
    assert measured == {name: expected[name] for name in measured} and 0 < measured["AP"] < 100


def test_a_layout_without_labels_is_refused():
    with pytest.raises(InputError, match="no label was asked for"):
        layout_average_precision(layout() | {"annotations": []}, {})


# --- synthetic sets -----------------------------------------------------------------------------------


def test_reasons_are_those_of_the_filters():
    assert NOT_CONFIRMED == {NO_MATCH, LOW_SCORE, LOW_IOU} and ALONE in AFTER_AGREEMENT
    assert (BEYOND, UNUSED) == (SPARE, NOT_JUDGED)


def written(folder, *, agreement: bool) -> list[dict]:
    images = [{"id": k, "file_name": f"00000.zip/{k}.png", "height": 9, "width": 9} for k in range(5)]
    label = {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 4.0, 4.0], "area": 16.0}
    kept = [label | {"id": k, "image_id": k % 4} for k in range(6)]
    kept += [label | {"id": 9, "real": True}, label | {"id": 10, "iscrowd": 1}]
    reasons = ["aesthetic", "no_match", "low_iou", "max_instances"]
    rejected = [label | {"reason": reason, "image_id": 4} for reason in reasons]
    rejected.append(label | {"reason": ALONE, "real": True})
    drawn = {"images": images, "annotations": kept, "rejected": rejected}
    shard = write_shard(folder, drawn | {"categories": [{"id": 1, "name": "cup"}]})
    write_filtered([shard], folder / "set.json")
    files = {
        "set.json.record.json": {
            "settings": {"filter": {"agreement": {"enabled": agreement}}},
            "images_generated": 8,
        },
        "0.record.json": {"wall_seconds": 10.0},
        "1.record.json": {"wall_seconds": 6.0},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return [*as_dictionaries(folder / "set.json"), *files.values()]


def test_a_set_is_counted(tmp_path, monkeypatch):
    written(tmp_path, agreement=True)
    output = tmp_path / "measures.json"
    options = {
        "synthetic": ["set.json"],
        "records": ["0.record.json", "1.record.json"],
    }
    call = ["stage", "--settings", "{}", "--output", str(output)]
    for name, files in options.items():
        call += [f"--{name}", *(str(tmp_path / file) for file in files)]
    monkeypatch.setattr("sys.argv", call)
    measure_set.main()
    measured = json.loads(output.read_text())["set"]
    assert measured == {
        "images": 4,
        "labels": 6,
        "rejected": 40.0,  # 4 of 10
        "agreement": pytest.approx(100 * 7 / 9),  # 6 kept and 1 dropped later, against 2 refused
        "seconds_per_image": 2.0,
        "seconds_per_offered": 4.0,
    }
    record = json.loads((tmp_path / "measures.json.record.json").read_text())
    assert len(record["inputs"]) == 4


def test_what_nobody_measured_is_null(tmp_path):
    files = written(tmp_path, agreement=False)
    measured = synthetic_set_measures(*files[:3], [{}])
    assert measured["agreement"] is None and measured["seconds_per_image"] is None
    empty = synthetic_set_measures({"images": [], "annotations": []}, {"rejected": []}, files[2], files[3:])
    assert empty["rejected"] is None and empty["labels"] == 0


def test_an_offered_image_costs_its_part_of_all_that_was_made(tmp_path):
    annotations, rejected, filtered = written(tmp_path, agreement=True)[:3]
    for number, label in enumerate(rejected["rejected"]):
        label["image_id"] = 100 + number
    spare = [{"reason": SPARE, "image_id": image} for image in (7, 7, 8, 9, 10)]
    unused = [{"reason": NOT_JUDGED, "image_id": 11}]
    rejected = {"rejected": [*rejected["rejected"], *spare, *unused]}
    others = {"fit": [{"wall_seconds": 40.0}], "label": [{"wall_seconds": 8.0}]}
    measured = synthetic_set_measures(annotations, rejected, filtered, [{"wall_seconds": 24.0}], others)
    # 4 images are offered, 4 more pass; the fit is for the 4, drawing and labelling for the 8.
    assert measured["seconds_per_offered"] == 40 / 4 + (24 + 8) / 8
    assert measured["rejected"] == pytest.approx(
        100 * 4 / 15
    )  # 6 kept, 5 spare; the unused one counts nowhere
    assert measured["agreement"] == pytest.approx(100 * 12 / 14)
