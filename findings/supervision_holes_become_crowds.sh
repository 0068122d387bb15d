#!/bin/sh
# supervision: an object with a hole, or in two parts, is written to COCO as a crowd, which evaluations pass over.
#
# Expected: `iscrowd` says that a region covers a group of objects; COCO writes crowds as run-length codes, but a
#   run-length code of a single object (iscrowd 0) is just as valid, and pycocotools reads it.
# Happens: of masks without further data (made by hand, or found by a segmentation model) those with a hole or several
#   parts get iscrowd 1. pycocotools ignores crowds: the object is no target any more. A set of such objects has no
#   AP at all (-1), in a mixed set hard ones vanish: half-hidden objects are those in parts.
# Means: after saving with as_coco set iscrowd to 0 where a region is one object, or give data={"iscrowd": 0} before.
#
# Installs supervision 0.31.2 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq supervision==0.31.2 pycocotools==2.0.11
cd "$work"
"$work/venv/bin/python" -W ignore::UserWarning - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

import numpy as np
import supervision
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

WIDTH, HEIGHT = 64, 48
whole = np.zeros((HEIGHT, WIDTH), bool)
whole[10:40, 8:48] = True
holed, parted = whole.copy(), whole.copy()
holed[20:30, 20:30] = False
parted[:, 24:30] = False
masks = {"whole": whole, "with a hole": holed, "in two parts": parted}

Path("images").mkdir()
Image.new("RGB", (WIDTH, HEIGHT)).save("images/1.png")
print("supervision", importlib.metadata.version("supervision"))
print("pycocotools", importlib.metadata.version("pycocotools"))
seen = {}
for name, mask in masks.items():
    detections = supervision.Detections(
        xyxy=np.array([[8.0, 10, 48, 40]]), mask=mask[None], class_id=np.array([0])
    )
    path = "images/1.png"
    data = supervision.DetectionDataset(classes=["cup"], images=[path], annotations={path: detections})
    data.as_coco(annotations_path="truth.json")
    (label,) = json.loads(Path("truth.json").read_text())["annotations"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO("truth.json")
        box = [8, 10, 40, 30]
        found = [{"image_id": label["image_id"], "category_id": label["category_id"], "bbox": box, "score": 1}]
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    seen[name] = (label["iscrowd"], round(float(run.stats[0]), 3))
    print(f"  one object {name}: iscrowd {seen[name][0]}, AP of a detector that finds it exactly {seen[name][1]}")

if seen != {"whole": (0, 1.0), "with a hole": (1, -1.0), "in two parts": (1, -1.0)}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: single objects with a hole or in parts are crowds in the file")
PYTHON
