#!/bin/sh
# pycocotools: an object whose annotation has the id 0 can be found, and still counts as missed.
#
# Expected: ids name annotations; which numbers they are does not matter. COCO's format asks for an integer, and files
#   that count from 0 are common: Label Studio's converter writes them so, and so does every `enumerate`.
# Happens: the evaluation notes for each detection the id of the object it matched, and 0 for none. A detection of
#   object 0 is counted as a false alarm, the object as missed. Two images, one object each, both found exactly:
#   AP 0.252 in place of 1. In a large file one object is lost, in small validation sets points of AP.
# Means: renumber from 1 before evaluating. faster-coco-eval gives the same number, but warns.
#
# Installs pycocotools 2.0.11 and faster-coco-eval 1.8.0 into a temporary folder. Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import sys
import warnings

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

BOX = [10, 10, 40, 40]


def average_precision(coco, evaluation, first):
    """AP of a detector that finds both objects exactly; annotations are numbered from `first`."""
    numbers = (0, 1)
    data = {
        "images": [{"id": 1 + k, "width": 100, "height": 100} for k in numbers],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": first + k, "image_id": 1 + k, "category_id": 1, "bbox": BOX, "area": 1600, "iscrowd": 0}
            for k in numbers
        ],
    }
    found = [{"image_id": 1 + k, "category_id": 1, "bbox": BOX, "score": 0.9} for k in numbers]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        truth = coco()
        truth.dataset = data
        truth.createIndex()
        run = evaluation(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3), any("id 0" in str(it.message) for it in said)


packages = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
seen = {}
for name, classes in packages.items():
    print(name, importlib.metadata.version(name))
    for first in (1, 0):
        seen[name, first] = average_precision(*classes, first)
        print(f"  annotations numbered from {first}: AP {seen[name, first][0]}, warned: {seen[name, first][1]}")

expected = {
    ("pycocotools", 1): (1.0, False),
    ("pycocotools", 0): (0.252, False),
    ("faster-coco-eval", 1): (1.0, False),
    ("faster-coco-eval", 0): (0.252, True),
}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the object with the annotation id 0 is never counted as found")
PYTHON
