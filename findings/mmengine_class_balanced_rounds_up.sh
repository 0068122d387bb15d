#!/bin/sh
# mmengine: ClassBalancedDataset rounds repeat factors up: classes just below the threshold are doubled.
#
# Expected: repeat factor sampling "following the sampling strategy in the paper" (LVIS), as the class says of itself:
#   an image whose rarest class is in a share f of the images counts sqrt(t / f) times. The factors are fractions; the
#   paper's detectron2 repeats by chance, so that 1.005 is 1.005 on average.
# Happens: every factor above 1 is rounded up, once, when the data set is made. A class in 9.9 % of the images, with a
#   threshold of 10 %, should count 1.005 times and counts twice, as much as one in 2.5 %. Factors from 1 to 2 are all
#   the same, and the most frequent of the repeated classes gain most.
# Means: the balance that the threshold is chosen for is not there, an epoch is longer than the factors say (below
#   1,204 images instead of 1,068, so that schedules in epochs train longer), and results with oversample_thr cannot be
#   compared with those of detectron2 for the same threshold.
#
# Installs onedl-mmengine 0.10.12 (the maintained distribution of mmengine) and torch 2.13.0 into a temporary folder.
# Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 onedl-mmengine==0.10.12 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import math
import sys
from collections import Counter

import mmengine
from mmengine.dataset import BaseDataset, ClassBalancedDataset

THRESHOLD = 0.1
COUNTS = {"in 9.9 %": 99, "in 5 %": 50, "in 2.5 %": 25, "in 1 %": 10}  # images of 1,000 with one object of the class
REST = 1000 - sum(COUNTS.values())  # images without objects


class Images(BaseDataset):
    """A thousand images, each with one object or none."""

    def load_data_list(self):
        return [{"classes": [name]} for name, count in COUNTS.items() for _ in range(count)] + [
            {"classes": []} for _ in range(REST)
        ]

    def get_cat_ids(self, index):
        return self.get_data_info(index)["classes"]


print(f"mmengine {mmengine.__version__}: ClassBalancedDataset(oversample_thr={THRESHOLD}), 1,000 images")
balanced = ClassBalancedDataset(Images(metainfo={}), oversample_thr=THRESHOLD)
drawn = Counter(tuple(balanced.get_data_info(index)["classes"]) for index in range(len(balanced)))
seen = {}
paper = float(REST)
for name, count in COUNTS.items():
    factor = math.sqrt(THRESHOLD / (count / 1000))
    paper += factor * count
    seen[name] = drawn[(name,)] / count
    print(f"  class {name:9} factor {factor:.3f}, repeated {seen[name]:.3f} times")
print(f"  an epoch has {len(balanced)} images; by the factors {paper:.0f}")
if list(seen.values()) != [2, 2, 2, 4]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: 1.005, 1.414 and 2.000 are all 2")
PYTHON
