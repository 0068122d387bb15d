"""Photographs without labels become a COCO file with scores, and a page to look at."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from tiny_adapter import save_adapter, save_model

from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore
from gen4det.stages.annotate import coco_labels, image_records

CATEGORIES = [{"id": 4, "name": "cup"}, {"id": 9, "name": "fish"}]


def photographs(folder, sizes=((64, 48), (50, 70))):
    folder.mkdir()
    for number, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_an_adapter_labels_photographs_it_has_never_seen(tmp_path):
    weights = save_adapter(tmp_path / "weights.safetensors", save_model(tmp_path / "model"), CATEGORIES)
    output = tmp_path / "labels.json"
    done = subprocess.run(
        [sys.executable, "-m", "gen4det.stages.annotate", "--settings", '{"min_score": 0.01}']
        + [
            "--images",
            str(photographs(tmp_path / "new")),
            "--weights",
            str(weights),
            "--output",
            str(output),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    labels = COCO(str(output))
    assert [image["file_name"] for image in labels.loadImgs(labels.getImgIds())] == ["0.png", "1.png"]
    found = labels.loadAnns(labels.getAnnIds())
    assert found and all(0.01 < label["score"] <= 1 for label in found)
    assert {label["category_id"] for label in found} <= {4, 9}
    assert labels.dataset["info"]["min_score"] == 0.01
    assert Image.open(tmp_path / "labels.png").width > 500 and (tmp_path / "labels.pdf").exists()
    record = json.loads((tmp_path / "labels.json.record.json").read_text())
    assert record["images"] == 2 and record["labels"] == len(found)


def test_boxes_at_the_threshold_or_without_area_are_left_out():
    records = [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}]
    boxes = [([0, 0, 4, 4], 0.9), ([0, 0, 4, 4], float(np.float32(0.3))), ([0, 0, 0, 4], 0.9)]
    found = [{"image_id": 1, "category_id": 4, "bbox": box, "score": score} for box, score in boxes]
    assert [label["score"] for label in coco_labels(records, CATEGORIES, found, 0.3)["annotations"]] == [0.9]


def test_no_photographs_and_broken_ones_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no images"):
        image_records(ImageStore(tmp_path / "empty"))
    (photographs(tmp_path / "new") / "0.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"0\.png"):
        image_records(ImageStore(tmp_path / "new"))
