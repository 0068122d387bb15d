#!/bin/sh
# datasets (Hugging Face): "imagefolder" takes a class that is called "train" for the training split and leaves
#   all other classes out, silently.
#
# Expected: one folder per class is the layout the loader is known for; its folders are the classes. "train" is
#   category 7 of COCO, and crops of objects sorted by category are how a classifier, or the real images of a
#   Frechet distance, are usually made from COCO.
# Happens: words like train, test, val, dev and eval anywhere in the path, in a class or a file name, set off by
#   spaces, dashes, dots or underscores, are looked for first. As soon as one is found, the files with such a word
#   are the data set, each in its split, and every file without one is dropped. Only if there is none, folders are
#   classes and everything is training data.
#   - airplane/, bus/, train/: three pictures of trains, and no labels.
#   - airplane/, bus/, cat/ and one file bus/test-drive.jpg: that file alone.
# Means: a data set of 80 COCO classes shrinks to one of 80 with no error and no warning. Put the classes under a
#   folder train/ (train/airplane, train/bus, train/train), and compare the number of images with that on the disk.
#
# Installs datasets 5.2.0 and pillow 13.0.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq datasets==5.2.0 pillow==13.0.0
HF_HOME="$work/home" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from collections import Counter
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()


def loaded(name, files):
    """Split -> number of images per class, of a folder with these files."""
    folder = Path(sys.argv[1], name)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / file)
    seen = {}
    for split, rows in datasets.load_dataset("imagefolder", data_dir=str(folder)).items():
        label = rows.features.get("label")
        seen[str(split)] = dict(Counter(label.int2str(row) for row in rows["label"])) if label else len(rows)
    print(f"  {name:24} {len(files)} files -> {seen}")
    return seen


def classes(*names):
    return [f"{name}/{number}.jpg" for name in names for number in range(3)]


print(f"datasets {datasets.__version__}: images per split and class (a bare number: no labels)")
seen = [
    loaded("no such word", classes("airplane", "bus", "cat")),
    loaded("class train", classes("airplane", "bus", "train")),
    loaded("file test-drive.jpg", [*classes("airplane", "bus", "cat"), "bus/test-drive.jpg"]),
    loaded("all under train", classes("train/airplane", "train/bus", "train/train")),
]
expected = [
    {"train": {"airplane": 3, "bus": 3, "cat": 3}},
    {"train": 3},
    {"test": 1},
    {"train": {"airplane": 3, "bus": 3, "train": 3}},
]
if seen != expected:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: one class or file with such a word, and all others are gone")
PYTHON
