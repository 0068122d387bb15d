#!/bin/sh
# imantics: its YOLO lines hold the corner of a box in place of its centre, and class numbers change with the image.
#
# Expected: a YOLO line is the class, the centre of the box, its width and its height; classes are numbered from 0, the
#   same way in all files, by one list of names.
# Happens: Dataset.yolo() and Image.yolo() write the upper left corner where the centre belongs: what reads the line as
#   YOLO sees the box half its size further up and left, overlapping with the object by a quarter of each (IoU 0.14).
#   The class is the category's place among those of this image, in order of appearance and from 1: in a picture of a
#   cup and a dog they are 1 and 2, in one of a dog and a cup it is the other way round, and alone each is 1. The COCO
#   output of the same objects is right.
# Means: all numbers lie between 0 and 1, trainers start, and learn boxes beside the objects under names that change
#   from image to image; a validation set written in the same way agrees with the shifted boxes. Write YOLO from the
#   COCO output.
#
# Installs imantics 0.1.12 into a temporary folder (with OpenCV without windows). Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq --no-deps imantics==0.1.12 numpy==2.2.6 \
  opencv-python-headless==4.12.0.88 lxml==6.1.3 xmljson==0.2.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

from imantics import Annotation, BBox, Category, Image

BOX = [60, 30, 100, 70]  # left, top, right, bottom


def written(names):
    """YOLO lines, and the boxes of the COCO output, for a picture of 200 x 100 pixels with objects of these names."""
    image = Image(width=200, height=100, id=1, path="1.jpg")
    for name in names:
        image.add(Annotation.from_bbox(BBox(BOX), image=image, category=Category(name)))
    return image.yolo(), [row["bbox"] for row in image.coco()["annotations"]]


def overlap(line):
    """IoU of BOX with the box of a line that is read as the format says: centre, width, height."""
    x, y, width, height = (float(value) * size for value, size in zip(line.split()[1:], (200, 100, 200, 100)))
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    common = max(0, min(right, BOX[2]) - max(left, BOX[0])) * max(0, min(bottom, BOX[3]) - max(top, BOX[1]))
    return common / (width * height + 1600 - common)


print("imantics", importlib.metadata.version("imantics"))
seen = {}
for names in (["cup", "dog"], ["dog", "cup"], ["dog"]):
    lines, boxes = written(names)
    seen[" ".join(names)] = [line.split()[0] for line in lines]
    print(f"  {', '.join(names)}: YOLO {lines}, COCO boxes {boxes}")
centre = "0.40000 0.50000 0.20000 0.40000"
print(f"  right would be {centre}; IoU of the written box with the object: {overlap(lines[0]):.2f}")
as_meant = overlap("0 " + centre) == 1 and boxes == [(60, 30, 40, 40)]
if not as_meant or lines[0] != "1 0.30000 0.30000 0.20000 0.40000" or round(overlap(lines[0]), 2) != 0.14:
    sys.exit("CHANGED: this is no longer what happens")
if seen != {"cup dog": ["1", "2"], "dog cup": ["1", "2"], "dog": ["1"]}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: corners in place of centres, and numbers that depend on the image")
PYTHON
