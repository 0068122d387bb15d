#!/bin/sh
# albumentations: when a box is dropped its label goes too, but its mask stays, and masks and boxes no longer match.
#
# Expected: image, boxes, labels and one mask per object go in, and what belongs together comes out: the list of masks
#   is as long as that of boxes, in the same order.
# Happens: an object outside of the crop (or below min_area or min_visibility) loses its box and its entry in
#   label_fields; "masks" keeps all of its entries, the empty ones, too. From the first dropped object on, mask n
#   belongs to another object than box n.
# Means: zip(boxes, labels, masks), as instance segmentation needs them, trains with the masks of wrong objects in every
#   image in which something was cropped away, without an error. Pass indices as a label field and pick the masks by
#   those that come back.
#
# Installs albumentations 2.0.8 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq albumentations==2.0.8 opencv-python-headless==4.12.0.88 numpy==2.2.6
NO_ALBUMENTATIONS_UPDATE=1 "$work/venv/bin/python" - <<'PYTHON'
import sys

import albumentations
import numpy

OBJECTS = {"cat": [60, 10, 90, 50], "dog": [5, 5, 20, 20], "cup": [10, 60, 35, 90]}  # the cat is right of the crop


def mask(box):
    left, top, right, bottom = box
    mask = numpy.zeros((100, 100), numpy.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def tight(mask):
    """Box of a mask's pixels, or None."""
    rows, columns = numpy.nonzero(mask)
    if not len(rows):
        return None
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


transform = albumentations.Compose(
    [albumentations.Crop(0, 0, 40, 100)],
    bbox_params=albumentations.BboxParams(format="pascal_voc", label_fields=["names"]),
)
result = transform(
    image=numpy.zeros((100, 100, 3), numpy.uint8),
    bboxes=list(OBJECTS.values()),
    names=list(OBJECTS),
    masks=[mask(box) for box in OBJECTS.values()],
)
boxes = [[round(float(value)) for value in box[:4]] for box in result["bboxes"]]
masks = [tight(mask) for mask in result["masks"]]
print(f"albumentations {albumentations.__version__}: three objects, the left 40 columns, where the first is not")
print(f"  boxes {boxes}")
print(f"  names {list(result['names'])}")
print(f"  masks {masks} (the box of each)")
seen = boxes, list(result["names"]), masks
expected = [OBJECTS["dog"], OBJECTS["cup"]], ["dog", "cup"], [None, OBJECTS["dog"], OBJECTS["cup"]]
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: two boxes and names, three masks; the cup's box stands beside the dog's mask")
PYTHON
