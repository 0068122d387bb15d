#!/bin/sh
# mmdet: Grounding DINO's fusion of image and text attends to padding; its mask of words has no effect.
#
# Expected: in a batch of texts of different lengths the shorter ones are padded, and a mask says which words are
#   there. An image's features then depend on its own words alone.
# Happens: Grounding DINO hands the fusion layer a mask of booleans. The layer writes -9e15 into it where nothing is
#   there; into a boolean that is True again. All of the mask is then True, 1 is added to every score, and padding is
#   attended to like words. No error, no warning. The same mask as numbers works.
# Means: what is found in an image depends on which texts it happens to be batched with, in training and in
#   evaluation, and single images give other scores than batches. Hand the layer mask.float(), True where a word is.
#
# Installs onedl-mmdetection 3.5.1 and onedl-mmcv 2.3.6 (the maintained distributions of mmdet and mmcv) and torch
# 2.13.0 into a temporary folder; of mmdet one file is loaded, which needs no compiled operators. Exits with 1 when the
# behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 onedl-mmengine==0.10.12 numpy==2.2.6 opencv-python-headless
"$work/venv/bin/python" -m pip install -qq --no-deps onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1
"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import torch

folder = Path(importlib.util.find_spec("mmdet").submodule_search_locations[0])
spec = importlib.util.spec_from_file_location("fusion", folder / "models/utils/vlfuse_helper.py")
fusion = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fusion)

print(f"onedl-mmdetection {importlib.metadata.version('onedl-mmdetection')}: SingleScaleBiAttentionBlock, 3 words, 1 padded")
torch.manual_seed(0)
layer = fusion.SingleScaleBiAttentionBlock(16, 16, 16, 2, init_values=1.0).eval()
image, words = torch.randn(1, 5, 16), torch.randn(1, 3, 16)
other = words.clone()
other[0, 2] = torch.randn(16)  # the padded place holds something else
there = torch.tensor([[True, True, False]])


@torch.no_grad()
def moved(mask):
    """How much an image's features change with what stands in the padded place."""
    one, two = (layer(image, text, attention_mask_l=mask)[0] for text in (words, other))
    return float((one - two).abs().max())


none, booleans, numbers = moved(None), moved(there), moved(there.float())
print(f"  change of the image's features: no mask {none:.4f}, booleans {booleans:.4f}, numbers {numbers:.4f}")
if not (numbers == 0 and abs(booleans - none) < 1e-5 and none > 0.01):
    sys.exit("CHANGED: this is no longer what happens")
print("as described: a mask of booleans masks nothing")
PYTHON
