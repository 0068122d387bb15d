#!/bin/sh
# transformers: DETR's image processor divides boxes by the padded image, and multiplies them by the unpadded one.
#
# Expected: what the processor makes of annotations is what the model shall answer: handed back as its answer to
#   post_process_object_detection, with the sizes of the images as documented, it gives the annotated boxes again. So it
#   is for one image, and in the authors' DETR, which divides by each image's own size before padding.
# Happens: in a batch, smaller images are padded to the size of the largest, and their boxes are divided by the padded
#   size. Post-processing knows nothing of padding. A box of 40 columns in an image half as wide as its neighbour comes
#   back 20 columns wide, at half of its x. Targets depend on which images happen to be in the same batch.
# Means: batches of mixed sizes teach a detector scales that it cannot read off an image, and an answer that is exactly
#   what was taught is a miss in a padded image (below: IoU 0.2). Nothing fails; AP is just lower, and another one for
#   each batch size. Pad all to one fixed size and hand post-processing the padded sizes, or set
#   do_convert_annotations=False and divide by each image's own size. Deformable and Conditional DETR, Grounding DINO
#   and YOLOS do the same.
#
# Installs transformers 5.23.0, torch 2.13.0 and pillow 13.0.0 into a temporary folder. Exits with 1 when the behaviour
# has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 transformers==5.23.0 pillow==13.0.0 numpy==2.2.6
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import sys
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from transformers import (
    ConditionalDetrImageProcessorPil,
    DeformableDetrImageProcessorPil,
    DetrImageProcessorPil,
    GroundingDinoImageProcessorPil,
    YolosImageProcessorPil,
)

BOX = [20, 20, 40, 50]  # x, y, width, height
SIZES = {"narrow": (100, 100), "wide": (100, 200)}  # height, width
SIZE = {"shortest_edge": 100, "longest_edge": 200}  # nothing is resized


def there_and_back(kind, names):
    """Boxes (x, y, width, height) of images of one batch after processing and post-processing."""
    processor = kind(size=SIZE)
    pictures = [np.zeros((*SIZES[name], 3), np.uint8) for name in names]
    one = {"bbox": BOX, "category_id": 1, "area": 2000, "iscrowd": 0}
    labels = [{"image_id": number, "annotations": [one]} for number in range(len(names))]
    batch = processor(images=pictures, annotations=labels, return_tensors="pt")
    logits = torch.tensor([[[-9.0, 9.0, -9.0]]] * len(names))  # sure of class 1
    perfect = SimpleNamespace(logits=logits, pred_boxes=torch.stack([row["boxes"].float() for row in batch["labels"]]))
    sizes = [tuple(row["orig_size"].tolist()) for row in batch["labels"]]
    found = processor.post_process_object_detection(perfect, threshold=0.5, target_sizes=sizes)
    corners = [row["boxes"][0].tolist() for row in found]
    return {name: [round(v) for v in (x, y, x2 - x, y2 - y)] for name, (x, y, x2, y2) in zip(names, corners)}


print(f"transformers {transformers.__version__}: box {BOX} of each image, processed and post-processed")
seen = []
for kind in (
    DetrImageProcessorPil,
    ConditionalDetrImageProcessorPil,
    DeformableDetrImageProcessorPil,
    GroundingDinoImageProcessorPil,
    YolosImageProcessorPil,
):
    alone = there_and_back(kind, ["narrow"])
    both = there_and_back(kind, ["narrow", "wide"])
    print(f"  {kind.__name__:32} alone {alone}, in one batch {both}")
    seen.append((alone, both))
if any(it != ({"narrow": BOX}, {"narrow": [10, 20, 20, 50], "wide": BOX}) for it in seen):
    sys.exit("CHANGED: this is no longer what happens")
print("as described: the box of a padded image comes back at half its width")
PYTHON
