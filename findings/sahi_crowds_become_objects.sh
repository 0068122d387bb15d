#!/bin/sh
# sahi: a crowd that passes through Coco or slice_coco is an ordinary object afterwards, with its box as its mask.
#
# Expected: `iscrowd` is a part of COCO's format: evaluations pass over crowds, trainers leave them out. CocoAnnotation
#   has the field. Slicing, splitting, merging or sampling a file leaves it as it is.
# Happens: annotations are read without it, and "iscrowd": 0 is written for all. Crowds are mostly run-length codes; for
#   these (and for every other mask of this kind) a warning says that the segmentation is skipped, but not that the
#   box takes its place: after slicing it is there as a rectangular polygon.
# Means: in sliced or split data a detector learns that a box around a group of people is a person, and has to find it:
#   each such box is a miss. Below, a perfect detector of single persons has an AP of 0.505 in place of 1. Take
#   crowds out before, and put them back in the coordinates of the slices.
#
# Installs sahi 0.12.8 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq sahi==0.12.8 pycocotools==2.0.11 numpy==2.2.6
cd "$work"
"$work/venv/bin/python" - 2>messages <<'PYTHON' || { cat messages >&2 && exit 1; }
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sahi.slicing import slice_coco
from sahi.utils.coco import Coco

ONE = [10, 60, 20, 30]
group = np.zeros((100, 200), np.uint8)
group[10:50, 10:30] = group[10:20, 10:90] = 1  # an L in a box of 80 x 40
code = coco_mask.encode(np.asfortranarray(group))
person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": ONE, "area": 600, "iscrowd": 0}
crowd = person | {"id": 2, "bbox": [10, 10, 80, 40], "area": int(group.sum()), "iscrowd": 1}
data = {
    "images": [{"id": 1, "file_name": "1.png", "width": 200, "height": 100}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [
        person | {"segmentation": [[10, 60, 30, 60, 30, 90, 10, 90]]},
        crowd | {"segmentation": code | {"counts": code["counts"].decode()}},
    ],
}
Image.new("RGB", (200, 100)).save("1.png")
Path("truth.json").write_text(json.dumps(data))


def average_precision(truth):
    """AP of a detector that finds the one person exactly."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        found = coco.loadRes([{"image_id": 1, "category_id": 1, "bbox": ONE, "score": 0.9}])
        run = COCOeval(coco, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


sliced, _ = slice_coco("truth.json", ".", "", slice_height=100, slice_width=100, overlap_width_ratio=0)
files = {"as annotated": data, "Coco(...).json": Coco.from_coco_dict_or_path("truth.json").json, "slice_coco": sliced}
print("sahi", importlib.metadata.version("sahi"))
seen = {}
for name, truth in files.items():
    after = next(it for it in truth["annotations"] if it["bbox"][1] == 10)
    mask = after["segmentation"]
    kind = "run lengths" if isinstance(mask, dict) else f"{len(mask)} polygons"
    seen[name] = after["iscrowd"], after["area"], kind, average_precision(truth)
    print(f"  {name:15} iscrowd {after['iscrowd']}, area {after['area']}, {kind}; perfect detector: AP {seen[name][3]}")

expected = {
    "as annotated": (1, 1400, "run lengths", 1.0),
    "Coco(...).json": (0, 3200, "0 polygons", 0.505),
    "slice_coco": (0, 3200, "1 polygons", 0.505),
}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the crowd has become an object that has to be found")
PYTHON
