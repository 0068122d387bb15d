#!/bin/sh
# ensemble-boxes: soft_nms neither lowers a score nor, with its defaults, removes a box: it gives back what it got.
#
# Expected: Soft-NMS lowers the score of a box by its overlap with better ones; boxes that stay come with the lowered
#   score, so that a duplicate ends far below the objects. That decay is the method.
# Happens: scores are lowered in a copy, which only decides which boxes fall below `thresh`; what comes back are the
#   scores that were given. With the default threshold of 0.001 nearly nothing falls below. A box of score 0.8 that
#   overlaps a better one with an IoU of 0.9 should be left with 0.08 (linear) or 0.16 (Gaussian); it keeps 0.8.
# Means: an ensemble "by Soft-NMS" is the plain union of its models' boxes, and each object counts as often as there are
#   models. Below, two models that are each perfect: AP 0.611 in place of 1. Multiply the scores yourself, or take nms
#   or weighted_boxes_fusion of the same package, which do what they say.
#
# Installs ensemble-boxes 1.0.9 and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq ensemble-boxes==1.0.9 pycocotools==2.0.11 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import math
import sys

from ensemble_boxes import nms, soft_nms, weighted_boxes_fusion
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 100  # the package wants boxes relative to the image
METHODS = {"nms": nms, "weighted_boxes_fusion": weighted_boxes_fusion, "soft_nms": soft_nms}


def scores_of_two(method):
    """Scores after Soft-NMS of two boxes of width 0.4 and 0.36 that begin together: their IoU is 0.9."""
    boxes = [[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.46, 0.5]]
    return [round(float(score), 3) for score in soft_nms([boxes], [[0.9, 0.8]], [[1, 1]], method=method)[1]]


def average_precision(method):
    """AP over ten images of one object each, which both models find exactly, with nearly the same scores."""
    box = [0.1, 0.1, 0.5, 0.5]
    truth, found = COCO(), []
    truth.dataset = {"images": [], "categories": [{"id": 1, "name": "cup"}], "annotations": []}
    for image in range(1, 11):
        truth.dataset["images"].append({"id": image, "width": SIDE, "height": SIDE})
        label = {"id": image, "image_id": image, "category_id": 1, "iscrowd": 0}
        truth.dataset["annotations"].append(label | {"bbox": [10, 10, 40, 40], "area": 1600})
        score = 1 - 0.05 * image
        for one, sure, _ in zip(*method([[box], [box]], [[score], [score - 0.01]], [[1], [1]])):
            x, y, right, bottom = (float(value) * SIDE for value in one)
            row = {"image_id": image, "category_id": 1, "bbox": [x, y, right - x, bottom - y]}
            found.append(row | {"score": float(sure)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return len(found), round(float(run.stats[0]), 3)


print("ensemble-boxes", importlib.metadata.version("ensemble-boxes"))
decayed = {"linear": 0.8 * (1 - 0.9), "Gaussian": 0.8 * math.exp(-(0.9**2) / 0.5)}
seen = {name: scores_of_two(1 + kind) for kind, name in enumerate(decayed)}
for name, score in decayed.items():
    print(f"  scores 0.9 and 0.8, IoU 0.9, {name}: {seen[name]}; Soft-NMS: [0.9, {score:.3f}]")
ensemble = {name: average_precision(method) for name, method in METHODS.items()}
for name, (boxes, precision) in ensemble.items():
    print(f"  two models that find 10 objects, {name}: {boxes} boxes, AP {precision}")

unchanged = all(scores == [0.9, 0.8] for scores in seen.values())
if not unchanged or ensemble != {"nms": (10, 1.0), "weighted_boxes_fusion": (10, 1.0), "soft_nms": (20, 0.611)}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: scores come back as they were, and every object is there twice")
PYTHON
