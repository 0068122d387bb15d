#!/bin/sh
# mean-average-precision: an object marked as difficult counts as missed, found or not.
#
# Expected: ground truth has a column "difficult", as Pascal VOC has. VOC's rule: such an object need not be found, and
#   finding it is no mistake. A detector that finds all others exactly has an AP of 1.
# Happens: a detection of such an object is passed over, as it should be, but the number of objects by which recall is
#   divided counts them. They are then objects that nobody can find: marking one, which is to forgive a miss, turns
#   even a hit into a miss. The default matching and "soft" do the same.
# Means: the AP that can be reached at all is the share of objects that are not marked, 0.5 below; classes with many
#   difficult objects look badly detected, and numbers cannot be compared with VOC's own or those of another tool. Take
#   one that knows the rule: as "iscrowd" for pycocotools, the marked object costs nothing.
#
# Installs mean-average-precision 2024.1.5.0 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the
# behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq mean-average-precision==2024.1.5.0 pycocotools==2.0.11 \
    numpy==2.2.6 pandas==2.2.3
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import sys

import numpy as np
from mean_average_precision import MetricBuilder
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

EASY, OTHER = [10, 10, 50, 50], [60, 60, 90, 90]


def average_precision(marked, found, matching):
    """AP at IoU 0.5 of one image: EASY and OTHER, which may be marked, and the boxes that were found."""
    metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=1)
    boxes = [[*box, 0, 0.9 - k / 10] for k, box in enumerate(found)]
    metric.add(np.array(boxes, float), np.array([[*EASY, 0, 0, 0], [*OTHER, 0, marked, 0]], float))
    return round(float(metric.value(iou_thresholds=0.5, mpolicy=matching)["mAP"]), 3)


def by_pycocotools(marked, found):
    """The same by pycocotools, a marked object being a crowd."""
    truth = COCO()
    truth.dataset = {"images": [{"id": 1, "width": 100, "height": 100}], "categories": [{"id": 1, "name": "cup"}]}
    truth.dataset["annotations"] = [
        {"id": k, "image_id": 1, "category_id": 1, "bbox": as_coco(box), "area": 900, "iscrowd": crowd}
        for k, box, crowd in ((1, EASY, 0), (2, OTHER, marked))
    ]
    boxes = [
        {"image_id": 1, "category_id": 1, "bbox": as_coco(box), "score": 0.9 - k / 10} for k, box in enumerate(found)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(boxes), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[1]), 3)


def as_coco(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


print("mean-average-precision", importlib.metadata.version("mean-average-precision"))
seen = {}
for marked in (0, 1):
    for found in ([EASY], [EASY, OTHER]):
        both = [average_precision(marked, found, matching) for matching in ("greedy", "soft")]
        seen[marked, len(found)] = row = (*both, by_pycocotools(marked, found))
        name = "marked" if marked else "not marked"
        print(f"  2 objects, 1 of them {name:10}, {len(found)} found: AP greedy, soft, pycocotools {row}")
expected = {(0, 1): (0.5, 0.5, 0.505), (0, 2): (1.0, 1.0, 1.0), (1, 1): (0.5, 0.5, 1.0), (1, 2): (0.5, 0.5, 1.0)}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: what is marked as difficult cannot be found and has to be")
PYTHON
