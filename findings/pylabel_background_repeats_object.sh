#!/bin/sh
# pylabel: written as COCO, each image without objects repeats the last object of the image before it.
#
# Expected: an image without objects is in the list of images and nowhere else; annotations are those that were read.
# Happens: the exporter goes through a table with a row for each object and one for each empty image. For a row without
#   an object it appends the annotation that is still at hand from the row before, with its image and its id. Two
#   objects and two empty images after them become four annotations, three of them the same box. (If the first image of
#   the file is empty, there is none at hand, and UnboundLocalError is raised.) The COCO file that was read is fine.
# Means: evaluations count the repeated object as often as it is there, and a detector can find it once: the more
#   background images, the lower the AP. Below, a perfect detector has 0.505 in place of 1. Data sets of generated or
#   filtered images, many of which end up empty, suffer most. Drop annotations whose ids are there already.
#
# Installs pylabel 0.1.55 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pylabel==0.1.55 pycocotools==2.0.11 pandas==2.2.3 numpy==2.2.6
cd "$work"
MPLCONFIGDIR="$work" "$work/venv/bin/python" -W ignore - 2>messages <<'PYTHON' || { cat messages >&2 && exit 1; }
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pylabel import importer


def average_precision(path):
    """AP of a detector that finds both objects exactly; ids are raised by 1, as pycocotools never finds an object 0."""
    truth, found = COCO(), []
    truth.dataset = json.loads(Path(path).read_text())
    for row in truth.dataset["annotations"]:
        row["id"] += 1
    for k in (1, 2):
        found.append({"image_id": k, "category_id": 1, "bbox": [10 * k, 10, 40, 40], "score": 1 - k / 10})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


def exported(empty):
    """Images of the annotations, and AP, before and after: two objects, then `empty` images (-1: one before them)."""
    label = {"category_id": 1, "area": 1600, "iscrowd": 0, "segmentation": []}
    ids = range(min(empty, 0) + 1, 3 + max(empty, 0))
    data = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 100, "height": 100} for k in ids],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [label | {"id": k, "image_id": k, "bbox": [10 * k, 10, 40, 40]} for k in (1, 2)],
    }
    Path("read.json").write_text(json.dumps(data))
    importer.ImportCoco("read.json").export.ExportToCoco("written.json")
    files = [json.loads(Path(name).read_text())["annotations"] for name in ("read.json", "written.json")]
    images = [[row["image_id"] for row in rows] for rows in files]
    return *images, average_precision("read.json"), average_precision("written.json")


print("pylabel", importlib.metadata.version("pylabel"))
seen = {}
for empty in (0, 2):
    seen[empty] = read, written, before, after = exported(empty)
    print(f"  2 images with an object, {empty} without: annotations of images {read}, AP {before}", end="; ")
    print(f"written {written}, AP {after}")
try:
    first = exported(-1)
except UnboundLocalError as error:
    first = type(error).__name__
print(f"  1 image without an object, then 2 with: {first}")
expected = {0: ([1, 2], [1, 2], 1.0, 1.0), 2: ([1, 2], [1, 2, 2, 2], 1.0, 0.505)}
if first != "UnboundLocalError" or seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: an image without objects repeats the object of the one before it")
PYTHON
