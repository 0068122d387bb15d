#!/bin/sh
# imantics: all data sets of a process are one: after a training set has been read, a validation set contains it.
#
# Expected: Dataset.from_coco(train) and Dataset.from_coco(val) are two data sets, each with the images of its file.
# Happens: the images, annotations and categories of every Dataset are kept in dictionaries of the class, not of the
#   object. Whatever is read or made later is added to all data sets, those made before included. An image of the second
#   file that has an id of the first takes its place, and the annotations of both are then on the same image number; ids
#   of annotations are given anew, counting on.
# Means: validation files written after reading both hold the training images, so that a detector is judged on what it
#   was trained with; files numbered from 1 each, as split files mostly are, mix objects of different pictures. Below, a
#   set of 1 image is written with 3, and two files with an image 1 each become 1 image with the objects of both. Read
#   one file in each process.
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
cat >two_sets.py <<'PYTHON'
import importlib.metadata
import json
import sys

from imantics import Dataset


def content(images):
    """A COCO file with these images, by number and name, with a cup of 40 x 40 pixels each, at 10 times its place."""
    rows = [{"id": key, "file_name": name, "width": 200, "height": 100} for key, name in images]
    label = {"category_id": 1, "area": 1600, "iscrowd": 0}
    labels = []
    for k, (key, _) in enumerate(images, 1):
        left, right = 10 * k, 10 * k + 40
        segmentation = [[left, 10, right, 10, right, 50, left, 50]]
        labels.append(label | {"id": k, "image_id": key, "bbox": [left, 10, 40, 40], "segmentation": segmentation})
    return {"images": rows, "annotations": labels, "categories": [{"id": 1, "name": "cup"}]}


def names_and_objects(dataset):
    """Names of the images and the number of objects of each, in what Dataset writes as COCO."""
    rows = dataset.coco()
    return {
        image["file_name"]: sum(label["image_id"] == image["id"] for label in rows["annotations"])
        for image in rows["images"]
    }


first, second, expected = json.loads(sys.argv[1])
train = Dataset.from_coco(content(first))
alone = names_and_objects(train)
val = Dataset.from_coco(content(second))
seen = [alone, names_and_objects(train), names_and_objects(val)]
print("imantics", importlib.metadata.version("imantics"))
print(f"  files: {[name for _, name in first]} and {[name for _, name in second]}, one object in each image")
print(f"  train before val is read: {seen[0]}")
print(f"  train and val after it: {seen[1]} and {seen[2]}")
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
PYTHON
"$work/venv/bin/python" two_sets.py '[[[1, "a.jpg"], [2, "b.jpg"]], [[3, "c.jpg"]], [{"a.jpg": 1, "b.jpg": 1},
  {"a.jpg": 1, "b.jpg": 1, "c.jpg": 1}, {"a.jpg": 1, "b.jpg": 1, "c.jpg": 1}]]'
"$work/venv/bin/python" two_sets.py '[[[1, "a.jpg"]], [[1, "c.jpg"]], [{"a.jpg": 1}, {"c.jpg": 2}, {"c.jpg": 2}]]'
echo "as described: what is read into one data set is in all of them"
