#!/bin/sh
# pandas: read_json turns JSON strings into numbers: "000000000139" becomes 139.
#
# Expected: JSON says what is text: "000000000139", the name of a COCO image, and "12345e67", a short commit, are in
#   quotes. What was written by to_json comes back by read_json.
# Happens: by default the types of columns are guessed from the content, quotes or not, as in a CSV file. A column whose
#   texts all look like numbers becomes numbers: names lose their zeros, a commit becomes 1.2345e+71, and whether it
#   happens depends on the other rows (one "0f3a9c1" more and all stay text). dtype=False reads what is written.
# Means: scores of images that are merged by name with a table of annotations match no row, or those of another image
#   where names of different length meet ("0139" and "139"); hashes in a table of runs cannot be looked up. The table of
#   one experiment is read in another way than that of two. Pass dtype=False.
#
# Installs pandas 3.1.1 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pandas==3.1.1 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import io
import sys

import pandas

ONE = pandas.DataFrame({"image": ["000000000139"], "commit": ["12345e67"], "AP": [0.381]})
TWO = pandas.concat([ONE, pandas.DataFrame({"image": ["street_7"], "commit": ["0f3a9c1"], "AP": [0.402]})])


def first_row(table, **settings):
    read = pandas.read_json(io.StringIO(table.to_json(orient="records")), **settings)
    return read["image"].tolist()[0], read["commit"].tolist()[0]


print(f"pandas {pandas.__version__}: image and commit of the first row, written by to_json and read by read_json")
seen = {}
for name, table, settings in (
    ("one row", ONE, {}),
    ("two rows", TWO, {}),
    ("one row, dtype=False", ONE, {"dtype": False}),
):
    seen[name] = first_row(table, **settings)
    print(f"  {name:21} {seen[name]}")
if seen != {
    "one row": (139, 1.2345e71),
    "two rows": ("000000000139", "12345e67"),
    "one row, dtype=False": ("000000000139", "12345e67"),
}:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: text in quotes is read as numbers, if all rows look like it")
PYTHON
