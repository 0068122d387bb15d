#!/bin/sh
# map-boxes: AP depends on the order of the lines in the file of detections, and background images cost nothing.
#
# Expected: AP ranks detections by score: of two that overlap with the same object, the better one is the hit. The order
#   of the lines does not matter. A false alarm is one wherever it is; images without annotations are left out of it
#   with exclude_not_in_annotations=True, which is not the default.
# Happens:
#   - In each image the first detection in the file that overlaps enough takes the object, whatever its score. Scores
#     come in only afterwards: the better one, further down, is a false alarm, and one with a high score. Lines sorted
#     by class, by place or by another tool's ranking have another AP than lines sorted by score.
#   - Only images that have an annotation are gone through, with the option on or off. All false alarms in images
#     without objects are passed over.
# Means: a detector's AP in a file that is not sorted is too low (below: 0.5 in place of 1 at an IoU of 0.5), and one
#   that sees things in empty pictures loses nothing (1 in place of 0.5). Ablations with background images show no
#   effect. Sort by score before, and give each empty image a row of an own class that is called "nan", which is
#   skipped.
#
# Installs map-boxes 1.0.6 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq map-boxes==1.0.6 pycocotools==2.0.11 pandas==2.3.3 numpy==2.2.6
cd "$work"
MPLCONFIGDIR="$work" "$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import sys

import numpy as np

with contextlib.redirect_stdout(io.StringIO()):  # says that it takes its slow version
    from map_boxes import mean_average_precision_for_boxes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

OBJECTS = [["a", "cup", 10, 50, 10, 50], ["b", "cup", 20, 60, 10, 50]]  # image, class, left, right, top, bottom
HITS = [["a", "cup", 0.9, 10, 50, 10, 50], ["b", "cup", 0.8, 20, 60, 10, 50]]
DUPLICATES = [["a", "cup", 0.2, 12, 52, 10, 50], ["b", "cup", 0.1, 22, 62, 10, 50]]
ALARMS = [[name, "cup", 0.95, 10, 50, 10, 50] for name in ("c", "d")]  # in images without objects


def by_map_boxes(found, empty=(), **options):
    """AP at an IoU of 0.5; `empty` images get a row of the class "nan"."""
    rows = OBJECTS + [[name, "nan", 0, 0, 0, 0] for name in empty]
    table = [np.array(rows, dtype=object) for rows in (rows, found)]
    return round(float(mean_average_precision_for_boxes(*table, verbose=False, **options)[0]), 3)


def by_pycocotools(found):
    """The same number of pycocotools; all four images belong to the data."""
    ids = {name: k for k, name in enumerate("abcd", 1)}
    truth = COCO()
    truth.dataset = {"images": [{"id": k} for k in ids.values()], "categories": [{"id": 1, "name": "cup"}]}
    truth.dataset["annotations"] = [
        {"id": k, "image_id": ids[name], "category_id": 1, "bbox": [left, top, right - left, bottom - top]}
        | {"area": 1600, "iscrowd": 0}
        for k, (name, _, left, right, top, bottom) in enumerate(OBJECTS, 1)
    ]
    results = [
        {"image_id": ids[name], "category_id": 1, "score": score, "bbox": [left, top, right - left, bottom - top]}
        for name, _, score, left, right, top, bottom in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[1]), 3)


print("map-boxes", importlib.metadata.version("map-boxes"))
cases = {
    "hits, then duplicates": HITS + DUPLICATES,
    "duplicates, then hits": DUPLICATES + HITS,
    "hits, and two alarms in empty images": HITS + ALARMS,
}
seen = {}
for name, found in cases.items():
    seen[name] = by_map_boxes(found), by_pycocotools(found)
    print(f"  {name}: AP50 {seen[name][0]}, pycocotools {seen[name][1]}")
option = by_map_boxes(HITS + ALARMS, exclude_not_in_annotations=True)
named = by_map_boxes(HITS + ALARMS, "cd")
print(f"  the last with exclude_not_in_annotations=True: {option}; with a row for each empty image: {named}")
expected = dict(zip(cases, [(1.0, 1.0), (0.5, 1.0), (1.0, 0.5)]))
if seen != expected or option != 1.0 or named != 0.5:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the first line takes the object, and alarms in empty images are free")
PYTHON
