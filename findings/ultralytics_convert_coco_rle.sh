#!/bin/sh
# ultralytics: convert_coco makes objects smaller whose masks are run-length codes; the same masks as polygons it keeps.
#
# Expected: the polygon in the label file covers the mask, and its extent is the box of the annotation.
# Happens: outlines of decoded masks run through the centres of the outermost pixels, so a row and a column are lost:
#   an object of 20 x 10 pixels becomes 19 x 9, 171 px in place of 200. In segmentation files the trainer takes the
#   box from the polygon, so boxes shrink, too, though the annotation holds the right one.
# Means: masks painted or made by a model (run-length codes) train smaller objects than drawn ones (polygons), most so
#   small ones: 5 x 5 pixels become 4 x 4, IoU 0.64. Write polygons along the edges of pixels yourself.
#
# Installs ultralytics 8.4.190, faster-coco-eval 1.8.0 and pycocotools 2.0.11 into a temporary folder (PyTorch among
# them). Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq ultralytics==8.4.190 faster-coco-eval==1.8.0 pycocotools==2.0.11
cd "$work"
YOLO_CONFIG_DIR="$work" "$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    from ultralytics.data.converter import convert_coco
logging.disable(logging.CRITICAL)

WIDTH, HEIGHT = 64, 48
x, y, w, h = box = [8, 10, 20, 10]
pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
pixels[y : y + h, x : x + w] = 1
code = coco_mask.encode(np.asfortranarray(pixels))
spelled = {
    "polygon": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    "run-length code": code | {"counts": code["counts"].decode()},
}
print("ultralytics", importlib.metadata.version("ultralytics"))
seen = {}
for number, (name, segmentation) in enumerate(spelled.items()):
    label = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 200, "iscrowd": 0}
    data = {
        "images": [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [label | {"segmentation": segmentation}],
    }
    source, target = Path(f"coco{number}"), Path(f"yolo{number}")
    source.mkdir()
    (source / "instances_train.json").write_text(json.dumps(data))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        convert_coco(str(source), str(target), use_segments=True, cls91to80=False)
    words = (target / "labels/train/1.txt").read_text().split()[1:]
    points = np.array(words, float).reshape(-1, 2) * (WIDTH, HEIGHT)
    xs, ys = points.T
    area = abs(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1)) / 2
    extent = [round(float(it), 2) for it in (*points.min(0), *np.ptp(points, axis=0))]
    seen[name] = (round(float(area)), extent)
    print(f"  {name}: annotated 200 px in the box {box}; in the label file {seen[name][0]} px in {extent}")

if seen != {"polygon": (200, [8, 10, 20, 10]), "run-length code": (171, [8, 10, 19, 9])}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the run-length code of 20 x 10 pixels becomes a polygon of 19 x 9")
PYTHON
