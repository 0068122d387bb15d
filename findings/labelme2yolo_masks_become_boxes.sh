#!/bin/sh
# labelme2yolo: in polygon format a LabelMe mask becomes five numbers, which YOLO reads as a box at another place.
#
# Expected: with --output_format polygon each line is a class and the outline of the object. LabelMe's AI tools save
#   objects as "mask": two corners and, between them, a small black-and-white picture. Its outline, or at least the
#   rectangle, or an error, is what one looks for.
# Happens: the two corners are written as if they were an outline: class x y x y. A line of five numbers is YOLO's other
#   kind, class, centre, width and height. An object from (10, 10) to (50, 50) in a picture of 100 x 80 reads as a box
#   from (-15, -15) to (35, 35), IoU 0.18. The summary says that all conversions were successful. The bbox format is
#   right, and the package's labelme2coco leaves masks out without a word.
# Means: in files of masks alone all boxes are in other places and of other sizes than their objects, and large where an
#   object is small but far down or right; all numbers lie between 0 and 1, so that nothing looks wrong. Turn masks into
#   polygons before converting, and look for lines of five numbers in a segmentation set.
#
# Installs labelme2yolo 0.4.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq labelme2yolo==0.4.0 pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import base64
import importlib.metadata
import io
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 100, 80
CORNERS = [[10, 10], [50, 50]]

Path("labelme").mkdir()
Image.new("RGB", (WIDTH, HEIGHT)).save("labelme/1.png")
picture = io.BytesIO()
Image.new("1", (41, 41), 1).save(picture, "PNG")  # a full square: LabelMe's corners are the first and the last pixel
mask = base64.b64encode(picture.getvalue()).decode()
common = {"label": "cup", "group_id": None, "description": "", "flags": {}}
outline = [[60, 10], [90, 10], [90, 30]]
shapes = [
    common | {"shape_type": "mask", "points": CORNERS, "mask": mask},
    common | {"shape_type": "polygon", "points": outline},
]
page = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "1.png", "imageData": None}
Path("labelme/1.json").write_text(json.dumps(page | {"imageHeight": HEIGHT, "imageWidth": WIDTH}))


def convert(command, folder, *options):
    """Runs a command of the package; what it says."""
    words = ["-d", "labelme", "-o", folder, "--val_size", "0", "--workers", "1", *options]
    run = subprocess.run(
        [f"{sys.prefix}/bin/{command}", *words], check=True, timeout=120, capture_output=True, text=True
    )
    return run.stdout + run.stderr


def as_box(line):
    """Left, top, right and bottom of a line of five numbers, read as class, centre, width and height."""
    x, y, width, height = (float(v) * size for v, size in zip(line.split()[1:], (WIDTH, HEIGHT, WIDTH, HEIGHT)))
    return [round(v, 2) for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]


print("labelme2yolo", importlib.metadata.version("labelme2yolo"))
seen = {}
for kind in ("bbox", "polygon"):
    said = convert("labelme2yolo", kind, "--output_format", kind)
    seen[kind] = next(Path(kind, "labels/train").glob("1_*.txt")).read_text().splitlines()
    print(f"  {kind}: {seen[kind]}; the first line is the box {as_box(seen[kind][0])}")
success = "Failed conversions: 0" in said
convert("labelme2coco", "coco")
rows = json.loads(Path("coco/annotations/instances_train.json").read_text())["annotations"]
print(f"  reported as success: {success}; boxes in the COCO file {[row['bbox'] for row in rows]}")
left, top, right, bottom = as_box(seen["polygon"][0])
common = (min(right, 50) - 10) * (min(bottom, 50) - 10)
overlap = common / ((right - left) * (bottom - top) + 1600 - common)
print(f"  object {CORNERS}; IoU with the box of the polygon format: {overlap:.2f}")
expected = {
    "bbox": ["0 0.300000 0.375000 0.400000 0.500000", "0 0.750000 0.250000 0.300000 0.250000"],
    "polygon": [
        "0 0.100000 0.125000 0.500000 0.625000",
        "0 0.600000 0.125000 0.900000 0.125000 0.900000 0.375000",
    ],
}
if seen != expected or not success or [row["bbox"] for row in rows] != [[60, 10, 30, 20]]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: a mask becomes a line that reads as a box beside the object")
PYTHON
