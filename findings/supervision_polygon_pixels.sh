#!/bin/sh
# supervision: one region as polygon and as run-length code gives two masks; polygons grow by a row and a column.
#
# Expected: a polygon along the edges of pixels, as COCO's are, covers the pixels inside: 20 x 10 of them here, as
#   pycocotools says, and as the run-length code of the same region holds.
# Happens: polygons are drawn with their border, 21 x 11 = 231 pixels, 15 % more; boxes stay. Written as YOLO the masks
#   of the two files differ again: outlines of masks run through the centres of pixels, so the region that came as
#   run-length code is 19 x 9 = 171 in the text file. Small objects change most: 5 x 5 pixels become 36.
# Means: mask AP of one data set depends on how its file spells masks. Decode masks with pycocotools.
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
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import supervision
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 64, 48
BOX = [8, 10, 20, 10]
x, y, w, h = BOX
pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
pixels[y : y + h, x : x + w] = 1
code = coco_mask.encode(np.asfortranarray(pixels))
polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
spelled = {"polygon": polygon, "run-length code": code | {"counts": code["counts"].decode()}}

Path("images").mkdir()
Image.new("RGB", (WIDTH, HEIGHT)).save("images/1.png")
print("supervision", importlib.metadata.version("supervision"))
print("pycocotools", importlib.metadata.version("pycocotools"))
seen = {}
for name, segmentation in spelled.items():
    label = {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 200, "iscrowd": 0}
    data = {
        "images": [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [label | {"segmentation": segmentation}],
    }
    Path("truth.json").write_text(json.dumps(data))
    loaded = supervision.DetectionDataset.from_coco("images", "truth.json", force_masks=True)
    ((_, _, detections),) = list(loaded)
    loaded.as_yolo(annotations_directory_path="labels")
    row = np.array(Path("labels/1.txt").read_text().split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
    xs, ys = row.T
    outline = abs(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1)) / 2
    exact = coco_mask.frPyObjects(polygon, HEIGHT, WIDTH)[0] if name == "polygon" else code
    seen[name] = (int(coco_mask.area(exact)), int(detections.mask.sum()), round(float(outline)))
    print(f"  {name}: pycocotools {seen[name][0]} px, supervision {seen[name][1]} px, as YOLO {seen[name][2]} px")

if seen != {"polygon": (200, 231, 200), "run-length code": (200, 200, 171)}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: 20 x 10 pixels are 231 as a polygon and 200 as a run-length code, 200 and 171 as YOLO")
PYTHON
