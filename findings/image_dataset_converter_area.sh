#!/bin/sh
# image-dataset-converter: written as COCO, every object has the area of its whole image, and so all objects are large.
#
# Expected: "area" of an annotation is that of the object; evaluations sort objects into small (below 32 x 32 pixels),
#   medium and large ones by it. A COCO file that was read and written has the areas it had.
# Happens: the writer puts the width of the image times its height in each annotation, whichever format was read. A cup
#   of 20 x 20 pixels in a picture of 320 x 240 has an area of 76800 in place of 400. Boxes are right. The polygon that
#   is made up for an object without one ends a pixel early at the right and at the bottom: 19 x 19.
# Means: AP over all sizes stays as it is, AP_small and AP_medium of such a file are undefined (-1), and AP_large is
#   that of everything: below, a detector that misses the small object has 0 for small and 1 for large ones before, and
#   0.505 for large ones after. What leaves small objects out by area, or balances by it, does nothing. Set "area" to
#   width * height of "bbox", or to that of the mask, after converting.
#
# Installs image-dataset-converter 0.1.0, without its depth images (they fetch a source archive while they are built),
# and pycocotools 2.0.11 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq --no-deps image-dataset-converter==0.1.0
"$work/venv/bin/python" -m pip install -qq seppl==0.3.1 kasperl==0.0.3 wai-common==0.0.46 wai-logging==0.0.8 \
  fast-opex==0.0.4 simple-palette-utils==0.0.4 python-image-complete==0.0.6 defusedxml==0.7.1 imagesize==2.0.1 \
  shapely==2.2.0 matplotlib==3.11.2 pillow==13.0.0 numpy==2.2.6 pycocotools==2.0.11
cd "$work"
MPLCONFIGDIR="$work" "$work/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import importlib.metadata
import io
import json
import sys
from pathlib import Path

from idc.reader.objdet._coco import COCOObjectDetectionReader
from idc.writer.objdet._coco import COCOObjectDetectionWriter
from kasperl.api import Session
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SMALL, LARGE = [10, 10, 20, 20], [100, 50, 150, 120]


def by_size(path):
    """AP of all, small, medium and large objects, for a detector that finds the large object and not the small one."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [round(float(run.stats[k]), 3) for k in (0, 3, 4, 5)]


Path("read").mkdir()
Image.new("RGB", (320, 240)).save("read/1.jpg")
label = {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": []}
data = {
    "info": {},
    "licenses": [{"id": 1, "name": "none", "url": ""}],
    "images": [{"id": 1, "file_name": "1.jpg", "width": 320, "height": 240, "license": 1}],
    "categories": [{"id": 1, "name": "cup", "supercategory": "thing"}],
    "annotations": [
        label | {"id": k, "bbox": box, "area": box[2] * box[3]} for k, box in enumerate((SMALL, LARGE), 1)
    ],
}
Path("read/labels.json").write_text(json.dumps(data))
found = [{"image_id": 1, "category_id": 1, "bbox": LARGE, "score": 0.9}]
reader, writer = COCOObjectDetectionReader(), COCOObjectDetectionWriter()
reader.session = writer.session = Session()
reader.parse_args(["-i", "read/labels.json"])  # idc-convert from-coco-od -i read/labels.json to-coco-od -o written
writer.parse_args(["-o", "written"])
for plugin in (reader, writer):
    plugin.initialize()
writer.write_batch(list(reader.read()))
writer.finalize()
files = {"read": "read/labels.json", "written": "written/annotations.json"}
print("image-dataset-converter", importlib.metadata.version("image-dataset-converter"))
seen = {}
for name, path in files.items():
    rows = json.loads(Path(path).read_text())["annotations"]
    seen[name] = boxes, areas, scores = [row["bbox"] for row in rows], [row["area"] for row in rows], by_size(path)
    print(f"  {name}: boxes {boxes}, areas {areas}; AP of all, small, medium, large {scores}")
print(f"  polygon of the small box: {rows[0]['segmentation']}")
expected = {
    "read": ([SMALL, LARGE], [400, 18000], [0.505, 0.0, -1.0, 1.0]),
    "written": ([SMALL, LARGE], [76800.0, 76800.0], [0.505, -1.0, -1.0, 0.505]),
}
if seen != expected or rows[0]["segmentation"] != [[10, 10, 29, 10, 29, 29, 10, 29]]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: each object has the area of its image")
PYTHON
