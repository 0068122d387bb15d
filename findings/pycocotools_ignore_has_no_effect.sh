#!/bin/sh
# pycocotools: "ignore": 1 of an annotation is read, and then overwritten.
#
# Expected: an annotation with "ignore": 1 is neither to be found nor a mistake when found. Files converted from data
#   sets with such regions (pedestrians, drones) carry the key, mmdet's COCO loader leaves such objects out of training,
#   and the evaluation looks it up: gt["ignore"] is what its matching is about.
# Happens: before evaluating, every annotation's "ignore" is set to its "iscrowd", whatever was there. Objects to ignore
#   count as missed if they are not found. faster-coco-eval does the same. "iscrowd": 1 has the effect, together with
#   another way of matching: any detection inside of it is a match.
# Means: a detector is trained not to see these objects and loses recall and AP for not seeing them: below, a third of
#   both. Set "iscrowd": 1 where "ignore" is 1 in the file that is evaluated against.
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

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

BOXES = [[10, 10, 40, 80], [60, 10, 40, 80], [110, 10, 40, 80]]


def ap(coco, evaluation, **keys):
    """AP of a detector that has found two of three persons exactly; the third has these keys."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = {
            "images": [{"id": 1, "width": 200, "height": 100}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [
                {
                    "id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 3200, "iscrowd": 0,
                    **(keys if number == 3 else {}),
                }
                for number, box in enumerate(BOXES, 1)
            ],
        }  # fmt: skip
        truth.createIndex()
        found = truth.loadRes(
            [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in BOXES[:2]]
        )
        run = evaluation(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 3)


seen = []
for package, coco, evaluation in (
    ("pycocotools", pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    ("faster-coco-eval", faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
):
    print(package, importlib.metadata.version(package))
    for keys in ({}, {"ignore": 1}, {"iscrowd": 1}):
        seen.append(ap(coco, evaluation, **keys))
        print(f"  two of three found, the third has {keys!s:15} AP {seen[-1]}")
if seen != [0.663, 0.663, 1.0] * 2:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: an object that is marked to be ignored counts as missed")
PYTHON
