#!/bin/sh
# superannotate: written as COCO, an object has the more area the lower in the image its box lies.
#
# Expected: "area" of a box is its width times its height, wherever it is; evaluations sort objects into small (below 32
#   x 32 pixels), medium and large ones by it.
# Happens: export_annotation for object detection takes the width times the lower edge, and then subtracts the upper
#   one. At the top of the image the two are the same. A box of 20 x 20 pixels is 400 there, 4,105 in the middle of a
#   picture of 480 rows and 8,760 at its lower edge: small objects become medium ones, and 40 x 40 at the lower edge is
#   large. The boxes are right.
# Means: in AP_small, AP_medium and AP_large stand the heights at which objects lie. What is close to the camera lies
#   low in the picture, so that the mistake looks plausible, and AP over all sizes is right. Set "area" to width *
#   height of "bbox" before evaluating, and before anything that leaves small objects out.
#
# Installs superannotate 4.6.2 and pycocotools 2.0.11 into a temporary folder; its usage figures and its search for
# newer versions are switched off. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq superannotate==4.6.2 pycocotools==2.0.11
cd "$work"
export SA_VERSION_CHECK=False SA_SKIP_METRICS=True HOME="$work" MPLCONFIGDIR="$work"
"$work/venv/bin/python" -W ignore - 2>messages <<'PYTHON' || { cat messages >&2 && exit 1; }
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from superannotate import export_annotation

BOXES = [[10, 0, 20, 20], [10, 195, 20, 20], [10, 440, 20, 20], [300, 440, 40, 40]]


def by_size(dataset):
    """AP of all, small, medium and large objects for a detector that finds every box exactly."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        found = [
            {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.9}
            for row in dataset["annotations"]
        ]
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [round(float(run.stats[k]), 3) for k in (0, 3, 4, 5)]


Path("project/classes").mkdir(parents=True)
Path("project/classes/classes.json").write_text(json.dumps([{"id": 1, "name": "cup", "color": "#ff0000"}]))
instances = [
    {"type": "bbox", "classId": 1, "className": "cup", "attributes": [], "groupId": 0}
    | {"points": {"x1": x, "y1": y, "x2": x + width, "y2": y + height}}
    for x, y, width, height in BOXES
]
metadata = {"name": "1.jpg", "width": 640, "height": 480}
page = {"metadata": metadata, "instances": instances, "tags": [], "comments": []}
Path("project/1.jpg.json").write_text(json.dumps(page))
Path("coco").mkdir()
with contextlib.redirect_stdout(io.StringIO()):
    export_annotation("project", "coco", "COCO", "written", "Vector", "object_detection")
dataset = json.loads(next(Path("coco").glob("**/written.json")).read_text())
print("superannotate", importlib.metadata.version("superannotate"))
rows = dataset["annotations"]
areas = [row["area"] for row in rows]
for row in rows:
    print(f"  box {row['bbox']} (x, y, width, height): area {row['area']}")
scores = by_size(dataset)
for row in rows:
    row["area"] = row["bbox"][2] * row["bbox"][3]
right = by_size(dataset)
print(f"  AP of all, small, medium, large: {scores}, with the areas of the boxes {right}")
seen = list(zip(BOXES, areas)) if [row["bbox"] for row in rows] == BOXES else None
expected = list(zip(BOXES, [400, 4105, 8760, 18760]))
if seen != expected or scores != [1.0, 1.0, 1.0, 1.0] or right != [1.0, 1.0, 1.0, -1.0]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the area grows with the height at which a box lies")
PYTHON
