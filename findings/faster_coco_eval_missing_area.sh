#!/bin/sh
# faster-coco-eval: an annotation without "area" counts as an object of area 0, i.e. as small.
#
# Expected: either the area is taken from the box or mask, or the file is refused. pycocotools, which the package
#   replaces one for one, refuses it: KeyError 'area'. The data format makes "area" a required key, but detectors
#   train without it, and hand-made or converted files often lack it.
# Happens: the area is 0. AP over all sizes is right; every such object, however large, is among the small ones, so
#   AP_small is the AP of everything and AP_medium and AP_large are undefined (-1) or those of other objects.
# Means: tables of AP by size from such a file are wrong without a sign of it, and a file that fails with pycocotools
#   passes here. Fill "area" in before evaluating.
#
# Installs faster-coco-eval 1.8.0 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq faster-coco-eval==1.8.0 pycocotools==2.0.11 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import sys

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

BOX = [10, 10, 70, 70]  # 4900 square pixels: medium


def annotations(**area):
    return {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "iscrowd": 0, **area}],
    }


def by_size(coco, evaluation, data):
    """AP of all, small, medium and large objects; the detector has found the one object exactly."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = data
        truth.createIndex()
        found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}])
        run = evaluation(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [round(float(run.stats[i]), 3) for i in (0, 3, 4, 5)]


packages = {
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
}
seen = {}
for name, (coco, evaluation) in packages.items():
    print(name, importlib.metadata.version(name))
    for case, data in (("area 4900", annotations(area=4900.0)), ("no area", annotations())):
        try:
            seen[name, case] = by_size(coco, evaluation, data)
        except KeyError as error:
            seen[name, case] = f"KeyError {error}"
        print(f"  {case:10} AP of all, small, medium, large objects: {seen[name, case]}")

expected = {
    ("faster-coco-eval", "area 4900"): [1.0, -1.0, 1.0, -1.0],
    ("faster-coco-eval", "no area"): [1.0, 1.0, -1.0, -1.0],
    ("pycocotools", "area 4900"): [1.0, -1.0, 1.0, -1.0],
    ("pycocotools", "no area"): "KeyError 'area'",
}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: a box of 70 x 70 pixels without an area is evaluated as a small object")
PYTHON
