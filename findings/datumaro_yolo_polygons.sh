#!/bin/sh
# datumaro: a YOLO folder with polygons is imported without the images that have some, and without a word.
#
# Expected: polygons are read, or the import fails, or at least says what it leaves out.
# Happens: an image whose label file has a line of a polygon is not in the imported set, boxes on other lines and the
#   image itself included. Nothing is raised. Of a folder of four images, two with a polygon, two are left.
# Means: what is exported from it, split or counted misses those images; in a segmentation set nothing is left but the
#   images without objects. Compare the number of items with that of the files, or convert polygons to boxes before.
#
# Installs datumaro 1.13.12 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq datumaro==1.13.12
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys
from pathlib import Path

import datumaro
from PIL import Image

BOX = "0 0.5 0.5 0.25 0.25\n"
POLYGON = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"
CASES = {"boxes": BOX, "a polygon": POLYGON, "a box and a polygon": BOX + POLYGON}

print("datumaro", importlib.metadata.version("datumaro"))
seen = {}
for number, (name, lines) in enumerate(CASES.items()):
    root = Path(f"yolo{number}")
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for image, text in (("plain", BOX), ("other", lines)):
            Image.new("RGB", (64, 48)).save(root / "images" / split / f"{split}-{image}.png")
            (root / "labels" / split / f"{split}-{image}.txt").write_text(text)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: cup}\n")
    found = datumaro.Dataset.import_from(str(root), "yolo")
    seen[name] = sorted(item.id for item in found)
    print(f"  4 images, two of them with {name}: {len(seen[name])} imported: {', '.join(seen[name])}")

everything = ["train-other", "train-plain", "val-other", "val-plain"]
left = ["train-plain", "val-plain"]
if seen != {"boxes": everything, "a polygon": left, "a box and a polygon": left}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: images with a polygon are missing from the imported set")
PYTHON
