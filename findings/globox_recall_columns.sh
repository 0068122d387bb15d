#!/bin/sh
# globox: in the table of its COCO evaluation the AR columns of the classes show AP; only the last line shows AR.
#
# Expected: show_summary and save_csv of COCOEvaluator give AP and AR for each class; AR 100 is the recall that 100
#   detections of an image reach, and a class whose objects are all found has 1.
# Happens: for each class AR 1, AR 10 and AR 100 are the average precision at 1, 10 and 100 detections, false alarms
#   included. AR 100 equals AP to the last digit. AR by size, and AR of all classes in the last line of the printed
#   table, are right, so that the last line is not the mean of those above it. The CSV file has no such line.
# Means: the classes that a detector misses are looked up in these columns, and what stands there says how its scores
#   are sorted: a class with false alarms looks missed. Below, all objects are found, recall is 1, the file says 0.667.
#   evaluator.ar_100() and ndets_100_evaluation()[label]["ar"] are right.
#
# Installs globox 2.9.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq globox==2.9.0 numpy==2.2.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import csv
import importlib.metadata
import sys

from globox import Annotation, AnnotationSet, BoundingBox, COCOEvaluator


def box(x, y, **score):
    return BoundingBox(label="cup", xmin=x, ymin=y, xmax=x + 30, ymax=y + 30, **score)


truth, found = (
    AnnotationSet([Annotation("1.jpg", (100, 100), boxes)])
    for boxes in (
        [box(10, 10), box(50, 10)],
        [box(10, 60, confidence=0.9), box(10, 10, confidence=0.8), box(50, 10, confidence=0.7)],
    )
)
evaluator = COCOEvaluator(ground_truths=truth, predictions=found)
evaluator.save_csv("table.csv")
with open("table.csv") as file:
    (row,) = csv.DictReader(file)
print(f"globox {importlib.metadata.version('globox')}: 2 objects, both found, and a false alarm of a higher score")
seen = {}
for detections in (1, 10, 100):
    recall = getattr(evaluator, f"ar_{detections}")()
    by_class = getattr(evaluator, f"ndets_{detections}_evaluation")()["cup"]["ar"]
    seen[detections] = round(recall, 3), round(by_class, 3), round(float(row[f"AR {detections}"]), 3)
    total, of_class, table = seen[detections]
    print(f"  AR {detections:3}: ar_{detections}() {total}, of the class {of_class}, table {table}")
print(f"  AP {float(row['AP 50:95']):.3f}, AR of small objects {row['AR S']}")
if seen != {1: (0.0, 0.0, 0.0), 10: (1.0, 1.0, 0.667), 100: (1.0, 1.0, 0.667)} or float(row["AR S"]) != 1:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the columns AR 1, AR 10 and AR 100 of a class are its AP")
PYTHON
