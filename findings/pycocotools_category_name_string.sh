#!/bin/sh
# pycocotools: getCatIds(catNms="carrot") finds cars, too.
#
# Expected: the ids of the category "carrot". The function takes names or one name: it wraps what is not a list, and
#   getCatIds(catNms="dog") gives the one id of dog.
# Happens: a string has a length and can be iterated, so it is not wrapped, and "name in list" becomes "name is a part
#   of the string". "carrot" gives car and carrot, "hot dog" gives dog and hot dog, "teddy bear" gives bear and
#   teddy bear, and the typing error "zebras" gives zebra.
#   getImgIds(catIds=...) wants images that have ALL of the categories: images of carrots are those with a car in them.
#   faster-coco-eval, which replaces pycocotools one for one, looks for the letters instead: no id for any string; and
#   an empty list means no condition in both, so the images "of carrots" are all images.
# Means: a subset for one class, a rare-class split or a crop set made in this way holds the wrong images, in two
#   different ways after a change of package. Give a list: catNms=["carrot"], and check that one id came back: a name
#   that no category has gives [], which is no condition either.
#
# Installs pycocotools 2.0.11 and faster-coco-eval 1.8.0 into a temporary folder. Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import sys

import faster_coco_eval
import pycocotools.coco

NAMES = ["car", "bear", "dog", "carrot", "hot dog", "teddy bear"]
IMAGES = {1: ["car"], 2: ["carrot"], 3: ["carrot", "dog"], 4: ["car", "carrot"], 5: ["bear"]}


def data():
    annotations = [
        {"image_id": image, "category_id": NAMES.index(name) + 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
        for image, names in IMAGES.items()
        for name in names
    ]
    return {
        "images": [{"id": image, "width": 100, "height": 100} for image in IMAGES],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }


seen = {}
for package, kind in (("pycocotools", pycocotools.coco.COCO), ("faster-coco-eval", faster_coco_eval.COCO)):
    print(package, importlib.metadata.version(package))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = kind()
        coco.dataset = data()
        coco.createIndex()
    for asked in ("dog", "carrot", "hot dog", "teddy bear", ["carrot"]):
        ids = coco.getCatIds(catNms=asked)
        found = [NAMES[number - 1] for number in ids]
        images = sorted(coco.getImgIds(catIds=ids))
        seen[package, str(asked)] = found, images
        print(f"  catNms={asked!r:14} categories {found!s:24} images {images}")

expected = {
    ("pycocotools", "dog"): (["dog"], [3]),
    ("pycocotools", "carrot"): (["car", "carrot"], [4]),
    ("pycocotools", "hot dog"): (["dog", "hot dog"], []),
    ("pycocotools", "teddy bear"): (["bear", "teddy bear"], []),
    ("pycocotools", "['carrot']"): (["carrot"], [2, 3, 4]),
    ("faster-coco-eval", "dog"): ([], [1, 2, 3, 4, 5]),
    ("faster-coco-eval", "carrot"): ([], [1, 2, 3, 4, 5]),
    ("faster-coco-eval", "hot dog"): ([], [1, 2, 3, 4, 5]),
    ("faster-coco-eval", "teddy bear"): ([], [1, 2, 3, 4, 5]),
    ("faster-coco-eval", "['carrot']"): (["carrot"], [2, 3, 4]),
}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: carrots are in images 2, 3 and 4; asked by a string, in image 4, or in all five")
PYTHON
