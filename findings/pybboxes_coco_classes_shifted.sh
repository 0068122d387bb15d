#!/bin/sh
# pybboxes: read from a COCO file whose categories count from 1, every object has the name of the next class.
#
# Expected: an annotation's category_id is the id of a category; its name is that category's. COCO's own ids begin with
#   1 and have gaps, and so do those of most files.
# Happens: the id is used as a position in the list of names: 1 is the second. Persons become bicycles in VOC, YOLO and
#   COCO alike. An object of the last class raises IndexError; a file (a split, a subset) in which the last class has no
#   object goes through. In the written COCO file an image is there once for each of its objects, images without objects
#   are gone; a second save_as_yolo into the same folder adds all boxes once more.
# Means: a converted data set has consistently wrong names: a detector trains and validates well on it, and confuses
#   neighbours in the list on any other data. Number categories from 0 in their order in the file before reading, and
#   count objects by class afterwards.
#
# Installs pybboxes 0.2.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pybboxes==0.2.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pybboxes.annotations import Annotations

CLASSES = ["person", "bicycle", "car"]


def converted(first):
    """Names in VOC, COCO, YOLO written once and twice; images in COCO. The ids of the file begin with `first`."""
    label = {"image_id": 1, "category_id": first, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    data = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 100, "height": 100} for k in (1, 2)],
        "categories": [{"id": first + k, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": [label | {"id": 1}, label | {"id": 2}],
    }
    Path("truth.json").write_text(json.dumps(data))
    annotations = Annotations("coco")
    with contextlib.redirect_stdout(io.StringIO()):
        annotations.load_from_coco("truth.json")
    folder = Path(f"from_{first}")
    folder.mkdir()
    annotations.save_as_voc(folder)
    voc = [it.findtext("name") for it in ElementTree.parse(folder / "1.xml").findall("object")]
    lines = []
    for _ in range(2):
        annotations.save_as_yolo(folder)
        names = (folder / "classes.txt").read_text().split()
        lines.append([names[int(line.split()[0])] for line in (folder / "1.txt").read_text().splitlines()])
    annotations.save_as_coco(folder / "coco.json")
    written = json.loads((folder / "coco.json").read_text())
    names = {it["id"]: it["name"] for it in written["categories"]}
    coco = [names[it["category_id"]] for it in written["annotations"]]
    return voc, coco, *lines, [it["file_name"] for it in written["images"]]


print(f"pybboxes {importlib.metadata.version('pybboxes')}: two persons in 1.jpg, nothing in 2.jpg; classes {CLASSES}")
seen = {}
for first in (0, 1):
    seen[first] = voc, coco, once, twice, images = converted(first)
    print(f"  ids from {first}: VOC {voc}, COCO {coco} in {images}, YOLO {once}, again {len(twice)} boxes")
expected = {
    first: ([name] * 2, [name] * 2, [name] * 2, [name] * 4, ["1.jpg", "1.jpg"])
    for first, name in ((0, "person"), (1, "bicycle"))
}
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: with ids from 1 persons are bicycles")
PYTHON
