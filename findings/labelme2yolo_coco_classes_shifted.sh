#!/bin/sh
# labelme2yolo: its labelme2coco gives every object the class before its own; the first class has none that exists.
#
# Expected: "category_id" of an annotation is the id of a category of the same file. The YOLO files that the package
#   makes of the same LabelMe folder are right.
# Happens: categories are numbered from 1, the annotations' category_id from 0. Cup, dog and bus are 1, 2 and 3 in the
#   list and 0, 1 and 2 in the annotations: dogs are cups, buses are dogs, and cups have an id that no category has.
#   Naming the classes changes nothing. With --deterministic_labels, which the help offers for the same numbers in every
#   run, the file has no categories and no annotations at all, and the command reports success.
# Means: pycocotools, and loaders that go by the list of categories, leave the first class out silently and learn and
#   judge the others under wrong names, consistently, so that AP is good. Add 1 to each category_id, and compare the
#   number of objects by name with that of the LabelMe files. (The older package labelme2coco, whose command has the
#   same name, agrees with itself.)
#
# Installs labelme2yolo 0.4.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq labelme2yolo==0.4.0 pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

NAMES = ["cup", "dog", "bus"]

Path("labelme").mkdir()
for name in NAMES:
    Image.new("RGB", (100, 80)).save(f"labelme/{name}.png")
    shape = {"label": name, "points": [[10, 10], [50, 50]], "shape_type": "rectangle", "group_id": None, "flags": {}}
    size = {"imageHeight": 80, "imageWidth": 100}
    page = {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": f"{name}.png", "imageData": None} | size
    Path(f"labelme/{name}.json").write_text(json.dumps(page))


def convert(command, folder, *options):
    """Runs a command of the package on all pictures, without a validation part."""
    words = ["-d", "labelme", "-o", folder, "--val_size", "0", "--workers", "1", *options]
    subprocess.run([f"{sys.prefix}/bin/{command}", *words], check=True, timeout=120, capture_output=True)


def classes(folder, *options):
    """Class of each picture's object, by the list of categories of the COCO file, or why there is none."""
    convert("labelme2coco", folder, *options)
    data = json.loads(Path(folder, "annotations/instances_train.json").read_text())
    named = {row["id"]: row["name"] for row in data["categories"]}
    file_names = {row["id"]: Path(row["file_name"]).stem for row in data["images"]}
    return named, {file_names[row["image_id"]]: row["category_id"] for row in data["annotations"]}


print("labelme2yolo", importlib.metadata.version("labelme2yolo"))
named, found = classes("coco", *NAMES)
read = {name: named.get(found[name], f"unknown id {found[name]}") for name in NAMES}
print(f"  COCO: categories {named}; a picture of a ... has a ...: {read}")
convert("labelme2yolo", "yolo", *NAMES)
lines = {name: int(next(Path("yolo/labels/train").glob(f"{name}_*.txt")).read_text().split()[0]) for name in NAMES}
print(f"  YOLO: {lines}")
empty = classes("empty", "--deterministic_labels")
print(f"  COCO with --deterministic_labels: categories {empty[0]}, objects {empty[1]}")
expected = {"cup": "unknown id 0", "dog": "cup", "bus": "dog"}
if read != expected or lines != {"cup": 0, "dog": 1, "bus": 2} or empty != ({}, {}):
    sys.exit("CHANGED: this is no longer what happens")
print("as described: in the COCO file each object has the class before its own")
PYTHON
