#!/bin/sh
# opencv and pycocotools: a mask that is stored as the polygon of its contour loses a row and a column each time.
#
# Expected: cv2.findContours gives the outline of a mask, COCO's "segmentation" takes polygons; written as points of the
#   contour and read by annToMask or frPyObjects, the mask comes back. With cv2.fillPoly, or Pillow's polygon, it does.
# Happens: OpenCV's points are the centres of the outermost pixels, which belong to the object (a square of 8 x 8 pixels
#   is 10 to 17). COCO's coordinates are the edges of pixels (10 to 18), so the polygon is read as 7 x 7. Of a square of
#   8 pixels 77 % of the area is kept, of 4 pixels 56 %, of 2 pixels 25 %; lines of one pixel are gone. Whoever reads
#   and writes again loses the next row and column.
# Means: masks of generated data, which come as arrays, are labelled too small, always at the right and the bottom, and
#   most for small objects: a perfect detector of 8-pixel masks has no match at an IoU of 0.8. Store run lengths
#   (pycocotools.mask.encode), which are exact.
#
# Installs opencv-python-headless 4.12.0.88, pycocotools 2.0.11 and pillow 13.0.0 into a temporary folder. Exits with 1
# when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq opencv-python-headless==4.12.0.88 pycocotools==2.0.11 \
    pillow==13.0.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

import cv2
import numpy
import pycocotools.mask
from PIL import Image, ImageDraw

SIZE = 64


def square(side):
    mask = numpy.zeros((SIZE, SIZE), numpy.uint8)
    mask[10 : 10 + side, 10 : 10 + side] = 1
    return mask


def polygons(mask):
    """Points (x, y) of the outlines, as OpenCV finds them; one point or two are no polygon."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0] for contour in contours if len(contour) > 2]


def by_coco(mask):
    """The mask, written as polygons and read by pycocotools."""
    points = [polygon.flatten().astype(float).tolist() for polygon in polygons(mask)]
    if not points:
        return numpy.zeros_like(mask)
    return pycocotools.mask.decode(pycocotools.mask.merge(pycocotools.mask.frPyObjects(points, SIZE, SIZE)))


def by_pillow(mask):
    image = Image.new("L", (SIZE, SIZE))
    for polygon in polygons(mask):
        ImageDraw.Draw(image).polygon([tuple(point) for point in polygon.tolist()], fill=1)
    return numpy.asarray(image)


def round_trips(mask):
    """How often a mask can be read and written until nothing is left."""
    count = 0
    while mask.any():
        mask = by_coco(mask)
        count += 1
    return count


print(*(f"{name} {importlib.metadata.version(name)}" for name in ("opencv-python-headless", "pycocotools", "pillow")))
print("  square  pixels  pycocotools  (IoU)   cv2.fillPoly  Pillow  gone after")
seen = {}
for side in (2, 4, 8, 16, 32):
    mask = square(side)
    read = by_coco(mask)
    filled = cv2.fillPoly(numpy.zeros_like(mask), polygons(mask), 1)
    seen[side] = int(mask.sum()), int(read.sum()), int(filled.sum()), int(by_pillow(mask).sum()), round_trips(mask)
    pixels, coco, opencv, pillow, count = seen[side]
    print(f"  {side:6} {pixels:7} {coco:12}  ({coco / pixels:.2f}) {opencv:14} {pillow:7} {count:5} rounds")
if seen != {side: (side**2, (side - 1) ** 2, side**2, side**2, side) for side in seen}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: OpenCV and Pillow restore the mask from its outline, COCO's reader cuts a row and a column")
PYTHON
