#!/bin/sh
# hotcoco: written as CVAT, an object in two parts becomes two objects, and an object with a hole loses its mask.
#
# Expected: "CVAT for images" has elements for polygons, for masks (run-length codes) and a group that ties shapes
#   together; to_cvat and from_cvat take an object there and back as one object.
# Happens: each polygon of an annotation becomes a shape of its own, without a group. An object that something in front
#   cuts in two comes back as two, each with its own box. A mask that is stored as a run-length code, as COCO's objects
#   with holes are, becomes its box, with the area of the box. The counts that to_cvat returns are those of shapes, and
#   "skipped_no_geometry" is 0.
# Means: checking a data set by hand in CVAT and reading it back changes the objects that nobody touched: a detector
#   that finds all of them exactly has an AP of 0.168 below in place of 1. to_yolo and to_voc of the same class keep one
#   box for each object. Carry masks as COCO, or compare the number of annotations.
#
# Installs hotcoco 1.3.0 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq hotcoco==1.3.0 pycocotools==2.0.11 numpy==2.2.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

import hotcoco
import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ring = np.zeros((100, 200), np.uint8, order="F")
ring[10:30, 10:40] = 1
ring[15:25, 20:30] = 0
code = masks.encode(ring)
code["counts"] = code["counts"].decode()
parts = [[10, 10, 20, 10, 20, 30, 10, 30], [60, 10, 70, 10, 70, 30, 60, 30]]
label = {"category_id": 1, "iscrowd": 0}
data = {
    "images": [{"id": k, "file_name": f"{k}.jpg", "width": 200, "height": 100} for k in (1, 2)],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [
        label | {"id": 1, "image_id": 1, "bbox": [10, 10, 30, 20], "area": 500, "segmentation": code},
        label | {"id": 2, "image_id": 2, "bbox": [10, 10, 60, 20], "area": 400, "segmentation": parts},
    ],
}
found = [
    {"image_id": row["image_id"], "category_id": 1, "bbox": row["bbox"], "score": score}
    for row, score in zip(data["annotations"], (0.8, 0.9))
]


def average_precision(path):
    """Box AP of a detector that finds the two objects exactly."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


def objects(path):
    """Image, box, area and kind of segmentation of each object in a COCO file."""
    kinds = {"list": "polygons", "dict": "code", "NoneType": "none"}
    rows = json.loads(Path(path).read_text())["annotations"]
    return [
        (row["image_id"], [int(v) for v in row["bbox"]], row["area"], kinds[type(row.get("segmentation")).__name__])
        for row in rows
    ]


print("hotcoco", importlib.metadata.version("hotcoco"))
Path("read.json").write_text(json.dumps(data))
counts = hotcoco.COCO("read.json").to_cvat("cvat.xml")
hotcoco.COCO.from_cvat("cvat.xml").save("back.json")
seen = {name: (objects(name), average_precision(name)) for name in ("read.json", "back.json")}
print(f"  to_cvat: {counts}")
for name, (rows, score) in seen.items():
    print(f"  {name}: AP {score}, objects (image, box, area, mask) {rows}")
lines = hotcoco.COCO("read.json").to_yolo("yolo")
print(f"  to_yolo: {lines}")
expected = {
    "read.json": ([(1, [10, 10, 30, 20], 500, "code"), (2, [10, 10, 60, 20], 400, "polygons")], 1.0),
    "back.json": (
        [
            (1, [10, 10, 30, 20], 600.0, "none"),
            (2, [10, 10, 10, 20], 200.0, "polygons"),
            (2, [60, 10, 10, 20], 200.0, "polygons"),
        ],
        0.168,
    ),
}
if seen != expected or counts["skipped_no_geometry"] != 0 or lines["annotations"] != 2:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: two parts become two objects, and a mask becomes its box")
PYTHON
