#!/bin/sh
# tidecv: AP is halved by one weak false alarm of a class that has no object in the ground truth.
#
# Expected: TIDE takes AP at one IoU as COCO's evaluation does (its source says so) and splits what is missing by kinds
#   of error. A class without an object has no recall; pycocotools leaves it out of the mean.
# Happens: the mean is taken over all classes of which there is an object or a detection, and a class without objects
#   counts with an AP of 0. With detections of class "cup" only, one cup and the cup found, AP is 100. One more box of
#   class "dog", at a score of 0.01, and it is 50; pycocotools says 100 for both. Which classes count depends on the
#   detector and its score threshold.
# Means: on a small validation set, or one of rare classes, AP says how many classes a detector names, not how well it
#   finds: of two detectors the one with the lower score threshold looks far worse. The shares of the kinds of error are
#   differences of such means: all of the drop is put down as "background" error. Drop detections of classes without an
#   object first.
#
# Installs tidecv 1.0.1 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq tidecv==1.0.1 pycocotools==2.0.11 numpy==2.2.6
cd "$work"
MPLCONFIGDIR="$work" "$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, datasets

BOX, SQUARE = [10, 10, 40, 40], [[10, 10, 50, 10, 50, 50, 10, 50]]
NAMES = {1: "cup", 2: "dog", 3: "cat", 4: "bus"}
label = {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "segmentation": SQUARE, "area": 1600, "iscrowd": 0}
data = {
    "images": [{"id": k, "file_name": f"{k}.jpg", "width": 100, "height": 100} for k in (1, 2)],
    "categories": [{"id": k, "name": name} for k, name in NAMES.items()],
    "annotations": [label],
}
Path("truth.json").write_text(json.dumps(data))


def average_precisions(alarms):
    """AP50 by TIDE and by pycocotools, and TIDE's errors: the cup is found; false alarms in image 2, one a class."""
    found = [{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}]
    found += [{"image_id": 2, "category_id": 2 + k, "bbox": BOX, "score": 0.01} for k in range(alarms)]
    Path("found.json").write_text(json.dumps(found))
    run = TIDE().evaluate(datasets.COCO("truth.json"), datasets.COCOResult("found.json"), mode=TIDE.BOX)
    errors = {kind.short_name: round(gain, 1) for kind, gain in run.fix_main_errors().items() if gain > 0}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO("truth.json")
        reference = COCOeval(truth, truth.loadRes("found.json"), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    return round(run.ap, 1), round(100 * float(reference.stats[1]), 1), errors


print("tidecv", importlib.metadata.version("tidecv"))
seen = {}
for alarms in (0, 1, 3):
    seen[alarms] = average_precisions(alarms)
    tide, coco, errors = seen[alarms]
    print(f"  false alarms of {alarms} such classes: AP50 of TIDE {tide}, pycocotools {coco}, errors {errors}")
expected = {0: (100.0, 100.0, {}), 1: (50.0, 100.0, {"Bkg": 50.0}), 3: (25.0, 100.0, {"Bkg": 75.0})}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: a class without an object counts with an AP of 0 as soon as it is named")
PYTHON
