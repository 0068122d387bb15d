"""What `rate`, `calibrate` and `detect` measured is read by the filter, or refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_filter_stage import write_shards, write_toy_dataset
from tiny_detector import tiny_config, tiny_dataset

from gen4det.core.errors import InputError
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.label_sets import as_dictionaries
from gen4det.data.label_tables import write_table
from gen4det.data.shards import archive_digest, load_shard, shard_identity
from gen4det.detection.settings import DetectorSettings
from gen4det.filters.agreement import compact
from gen4det.filters.settings import FilterSettings
from gen4det.stages import detect, filter_page
from gen4det.stages import filter as stage
from gen4det.stages import train as training

IMAGES = [1_000_000 + index for index in range(5)]


class Set:
    """A synthetic set in a folder, with measurements that tests write and spoil."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.dataset = load_dataset(write_toy_dataset(folder / "data", "lvis"))
        self.shards = write_shards(folder / "set/shards")
        self.annotations = folder / "set/set.json"

    def measure(self, values: dict, **changes) -> list[Path]:
        """One file per shard with `values`, a function of the shard where callable."""
        files = []
        for path in self.shards:
            shard = load_shard(path)
            data = {
                "of": shard_identity(shard),
                **{k: v(shard) if callable(v) else v for k, v in values.items()},
            }
            files.append(self.folder / f"measured{path.stem}.json")
            files[-1].write_text(json.dumps(data | changes))
        return files

    def rate(self, scores: dict[int, float], **changes) -> list[Path]:
        def of(shard: dict) -> dict:
            return {str(image["id"]): scores[image["id"]] for image in shard["images"]}

        return self.measure({"models": "m", "scores": of}, **changes)

    def detect(self, found: list[dict], **changes) -> list[Path]:
        def of(shard: dict) -> dict:
            ids = {image["id"] for image in shard["images"]}
            return compact([detection for detection in found if detection["image_id"] in ids])

        split = self.dataset.train.hash
        values = {"split": split, "detector": "d", "max_per_image": 300, "detections": of}
        return self.measure(values, **changes)

    def calibrate(self, **changes) -> Path:
        file = self.folder / "aesthetic.json"
        data = {"split": self.dataset.train.hash, "models": "m", "mean": 5.0, "images": 2}
        file.write_text(json.dumps(data | changes))
        return file

    def filter(self, settings: dict, *more: object) -> dict:
        arguments = [
            "--settings", json.dumps({"settings": {"filter": settings}}), "--dataset", self.dataset.path,
            "--shards", *self.shards, "--output", self.annotations,
            *more,
        ]  # fmt: skip
        self.monkeypatch.setattr(sys, "argv", ["filter", *map(str, arguments)])
        stage.main()
        return as_dictionaries(self.annotations)[1]


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Set:
    return Set(tmp_path, monkeypatch)


AESTHETIC = {"aesthetic": {"enabled": True}}
AGREEMENT = {"agreement": {"enabled": True}}
SCORES = dict(zip(IMAGES, [4.9, 5.0, 1.0, 1.0, 5.1], strict=True))


def confirming(label: dict) -> dict:
    return {key: label[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}


# --- aesthetic ------------------------------------------------------------------------------------------


def test_an_image_at_the_mean_is_kept_and_one_below_is_dropped_whole(drawn):
    rejected = drawn.filter(AESTHETIC, "--aesthetic", *drawn.rate(SCORES), "--calibration", drawn.calibrate())
    dropped = [a["image_id"] for a in rejected["rejected"] if a["reason"] == "aesthetic"]
    assert dropped == [IMAGES[0]] * 2
    data, _ = as_dictionaries(drawn.annotations)
    assert [image["id"] for image in data["images"]] == [IMAGES[1], IMAGES[4]]
    assert len(data["annotations"]) + len(rejected["rejected"]) == 10
    record = json.loads((drawn.folder / "set/set.json.record.json").read_text())
    assert record["aesthetic_threshold"] == 5.0


def test_a_number_needs_no_calibration(drawn):
    settings = {"aesthetic": {"enabled": True, "threshold": 5.05}}
    drawn.filter(settings, "--aesthetic", *drawn.rate(SCORES), "--calibration")
    assert [image["id"] for image in as_dictionaries(drawn.annotations)[0]["images"]] == [IMAGES[4]]
    with pytest.raises(InputError, match="real-mean needs --calibration"):
        drawn.filter(AESTHETIC, "--aesthetic", *drawn.rate(SCORES))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "another"}, r"aesthetic\.json: aesthetic threshold of another training split"),
        ({"models": "others"}, r"aesthetic\.json: aesthetic threshold of other models than rated"),
    ],
)
def test_a_threshold_of_another_split_or_of_other_models_is_refused(drawn, changes, message):
    with pytest.raises(InputError, match=message):
        drawn.filter(
            AESTHETIC, "--aesthetic", *drawn.rate(SCORES), "--calibration", drawn.calibrate(**changes)
        )


def test_scores_of_other_images_are_refused(drawn):
    with pytest.raises(InputError, match="2 shards, but 0 files of aesthetic scores"):
        drawn.filter(AESTHETIC, "--calibration", drawn.calibrate())
    files = drawn.rate(SCORES)
    with pytest.raises(InputError, match=r"measured00000\.json: .* of shard 0 are given twice"):
        drawn.filter(AESTHETIC, "--aesthetic", files[0], files[0], "--calibration", drawn.calibrate())
    data = json.loads(files[1].read_text())
    data["of"]["digest"] = "drawn anew since"
    files[1].write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"measured00001\.json: .* of other images than the shards hold"):
        drawn.filter(AESTHETIC, "--aesthetic", *files, "--calibration", drawn.calibrate())
    files[1].write_text("{}")
    with pytest.raises(InputError, match=r"measured00001\.json: not aesthetic scores"):
        drawn.filter(AESTHETIC, "--aesthetic", *files, "--calibration", drawn.calibrate())


def test_shards_rated_by_different_models_are_refused(drawn):
    files = drawn.rate(SCORES)
    files[1].write_text(json.dumps(json.loads(files[1].read_text()) | {"models": "others"}))
    with pytest.raises(InputError, match=r"measured00001\.json: scores of other models than"):
        drawn.filter(AESTHETIC, "--aesthetic", *files, "--calibration", drawn.calibrate())


# --- agreement ------------------------------------------------------------------------------------------


def test_labels_the_detector_does_not_confirm_are_listed_with_the_reason(drawn):
    labels = [a for path in drawn.shards for a in load_shard(path)["annotations"]]
    found = [confirming(label) for label in labels[:4]]
    found[1]["score"] = 0.01
    rejected = drawn.filter(AGREEMENT, "--detections", *drawn.detect(found))
    reasons = {a["id"]: a["reason"] for a in rejected["rejected"] if "id" in a}
    own = {label["id"] for label in labels}
    assert {i: r for i, r in reasons.items() if i in own} == {
        labels[1]["id"]: "low_score", labels[4]["id"]: "no_match", labels[5]["id"]: "no_match"
    }  # fmt: skip
    data, _ = as_dictionaries(drawn.annotations)
    assert len(data["annotations"]) == 3
    # The objects are still in the picture: nobody may take their absence for granted.
    incomplete = {image["id"]: image["not_exhaustive_category_ids"] for image in data["images"]}
    assert labels[1]["category_id"] in incomplete[labels[1]["image_id"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "another"}, "by a detector that was trained on another training split"),
        ({"max_per_image": 100}, "100 detections per image at most, .*max_per_image asks for 300"),
    ],
)
def test_detections_of_another_split_or_too_few_are_refused(drawn, changes, message):
    with pytest.raises(InputError, match=message):
        drawn.filter(AGREEMENT, "--detections", *drawn.detect([], **changes))


# --- detect ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A data set and the command line of a training on it, run once."""
    folder = tmp_path_factory.mktemp("detector")
    tiny_dataset(folder / "data")
    settings = {"detector": DetectorSettings(config=str(tiny_config(folder))).model_dump(), "seed": 0}
    arguments = [
        "train", "--settings", json.dumps({"settings": settings}),
        "--dataset", str(folder / "data/dataset.json"), "--output", str(folder / "weights.safetensors"),
        "--device", "cpu",
    ]  # fmt: skip
    before, sys.argv = sys.argv, arguments
    try:
        training.main()
    finally:
        sys.argv = before
    return folder


def run_detect(monkeypatch, folder: Path, shard: Path, **more) -> dict:
    output = folder / "detections.json"
    options = {"dataset": folder / "data/dataset.json", "weights": folder / "weights.safetensors"} | more
    arguments = [f"--{name}={value}" for name, value in options.items()]
    settings = '{"settings": {"max_per_image": 7}}'
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--settings", settings, *arguments, "--images", str(shard), "--output", str(output)],
    )
    detect.main()
    return json.loads(output.read_text())


def test_a_detector_looks_at_a_shard(drawn, detector, monkeypatch):
    found = run_detect(monkeypatch, detector, drawn.shards[0])
    shard = load_shard(drawn.shards[0])
    assert found["of"] == shard_identity(shard)
    assert found["split"] == load_dataset(detector / "data/dataset.json").train.hash
    assert found["detections"].keys() <= {str(image["id"]) for image in shard["images"]}
    assert all(len(rows) <= 7 for rows in found["detections"].values()) and found["max_per_image"] == 7
    assert all(len(row) == 6 for rows in found["detections"].values() for row in rows)


def test_detections_of_mixed_sizes_depend_on_no_other_image(drawn, detector, monkeypatch, tmp_path):
    """Else they would depend on the number of shards."""
    sizes, rng = [(64, 64), (48, 80), (96, 64), (33, 50), (64, 60), (130, 64)], np.random.default_rng(0)
    images = []
    with ShardWriter(tmp_path / "00000.zip") as writer:
        for number, (height, width) in enumerate(sizes, start=1):
            pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            writer.add(f"{number}.png", encode_image(pixels, "png"))
            name = f"00000.zip/{number}.png"
            images.append({"id": number, "file_name": name, "height": height, "width": width})
    info = {"shard": 0, "shards": 1, "run": "r", "archive": "00000.zip"}
    info["digest"] = archive_digest(tmp_path / "00000.zip")
    shard = {"images": images, "annotations": [], "categories": [], "rejected": [], "info": info}
    write_table(tmp_path / "00000.arrow", shard)
    one, many = (
        run_detect(monkeypatch, detector, tmp_path / "00000.arrow", **{"batch-size": size})["detections"]
        for size in (1, 16)
    )
    assert one.keys() == many.keys() and len(one) == len(sizes)
    for image, rows in one.items():
        assert [row[0] for row in rows] == [row[0] for row in many[image]]
        np.testing.assert_allclose(rows, many[image], atol=2e-3)


def test_a_detector_trained_on_another_split_is_refused(drawn, detector, monkeypatch, tmp_path):
    with pytest.raises(
        InputError, match=r"weights\.safetensors: trained on another split than .*dataset\.json"
    ):
        run_detect(monkeypatch, detector, drawn.shards[0], dataset=drawn.dataset.path)


def test_a_detector_that_has_seen_synthetic_images_is_refused(drawn, detector, monkeypatch, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((detector / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"record\.json: .* says what the detector was trained on"):
        run_detect(monkeypatch, detector, drawn.shards[0], weights=weights)
    record = json.loads((detector / "weights.safetensors.record.json").read_text())
    record["trained_on"]["synthetic"] = ["a hash"]
    path = tmp_path / "weights.safetensors.record.json"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="trained on synthetic images, too"):
        run_detect(monkeypatch, detector, drawn.shards[0], weights=weights)
    path.write_text("{}")
    with pytest.raises(InputError, match="does not say what the detector was trained on"):
        run_detect(monkeypatch, detector, drawn.shards[0], weights=weights)


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_shows_kept_and_rejected_boxes(drawn, monkeypatch):
    labels = [a for path in drawn.shards for a in load_shard(path)["annotations"]]
    found = [confirming(label) for label in labels[:4]]
    settings = AGREEMENT | AESTHETIC
    scores = [file.rename(file.with_name(f"scores-{file.name}")) for file in drawn.rate(SCORES)]
    drawn.filter(
        settings, "--detections", *drawn.detect(found),
        "--aesthetic", *scores, "--calibration", drawn.calibrate(),
    )  # fmt: skip
    output = drawn.annotations.with_name("filter.pdf")
    arguments = ["--synthetic", drawn.annotations, "--fractions", drawn.folder / "set/filter.csv"]
    call = ["page", "--settings", "{}", *map(str, arguments), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", call)
    filter_page.main()
    first = output.with_suffix(".png").read_bytes()
    filter_page.main()
    assert output.with_suffix(".png").read_bytes() == first
    assert output.read_bytes().startswith(b"%PDF")


def test_settings_of_the_filter_know_what_is_measured():
    assert not FilterSettings().measures
    assert FilterSettings(**AESTHETIC).measures and FilterSettings(**AGREEMENT).measures
