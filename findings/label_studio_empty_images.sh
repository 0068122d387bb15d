#!/bin/sh
# label-studio-sdk: an image that was looked at and shows nothing is kept by the YOLO export, lost by the VOC export.
#
# Expected: an annotation without boxes says that the image is background; each format can say that: an empty text
#   file, an XML file without objects, an image without annotations of its real size.
# Happens, for three tasks of which the second was submitted without a box: YOLO has three label files, one of them
#   empty. VOC has two XML files, and nothing tells that there was a third image. COCO has the image, but (where the
#   pictures are not fetched along) its width and height are null, which loaders that need sizes refuse; annotations
#   and categories are numbered from 0.
# Means: detectors trained on the three exports see different backgrounds. Count files; fill sizes in; renumber.
#
# Installs label-studio-sdk 2.1.2 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq label-studio-sdk==2.1.2
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import json
import logging
import sys
from pathlib import Path

from label_studio_sdk.converter.converter import Converter, Format

logging.disable(logging.CRITICAL)
WIDTH, HEIGHT = 64, 48
CONFIG = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="cup"/></RectangleLabels></View>"""


def task(number, boxes):
    """A submitted task; sizes of regions are in percent."""
    result = [
        {
            "id": f"region{place}", "from_name": "label", "to_name": "image", "type": "rectanglelabels",
            "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
            "value": {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cup"]},
        }
        for place in range(boxes)
    ]
    annotation = {"id": number, "completed_by": 1, "result": result}
    return {"id": number, "data": {"image": f"/data/upload/{number}.png"}, "annotations": [annotation]}


Path("tasks.json").write_text(json.dumps([task(1, 1), task(2, 0), task(3, 1)]))
print("label-studio-sdk", importlib.metadata.version("label-studio-sdk"))
for format in (Format.COCO, Format.YOLO, Format.VOC):
    converter = Converter(CONFIG, ".", download_resources=False)
    converter.convert("tasks.json", format.name, format, is_dir=False)

labels = {path.name: len(path.read_text().splitlines()) for path in sorted(Path("YOLO/labels").glob("*.txt"))}
pages = sorted(path.name for path in Path("VOC/Annotations").glob("*.xml"))
coco = json.loads(Path("COCO/result.json").read_text())
sizes = [(image["width"], image["height"]) for image in coco["images"]]
ids = [annotation["id"] for annotation in coco["annotations"]]
print(f"  YOLO: lines of each label file {labels}")
print(f"  VOC: files {pages}")
print(f"  COCO: sizes of the images {sizes}, annotation ids {ids}")

expected = (
    {"1.txt": 1, "2.txt": 0, "3.txt": 1},
    ["1.xml", "3.xml"],
    [(WIDTH, HEIGHT), (None, None), (WIDTH, HEIGHT)],
    [0, 1],
)
if (labels, pages, sizes, ids) != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the image without objects is background in YOLO, without a size in COCO, absent in VOC")
PYTHON
