#!/bin/sh
# diffusers: EMAModel of a model in half precision stands still after some thousand steps.
#
# Expected: the moving average of a model in bfloat16 or float16 follows its weights, with their rounding at worst.
# Happens: the average has the dtype of the model. Each step adds (1 - decay) * difference to it; with a decay of 0.9999
#   (0.999 after 9,000 steps, as EMAModel warms up by itself) that is less than half of the last digit of the average,
#   and rounding takes all of it, every time. A weight that goes from 0.5 to 0.75 and stays there for 20,000 steps has
#   an average of 0.5; in float32 it is 0.7495.
# Means: fully fine-tuned in half precision, the "EMA weights" that are saved and judged are those of an early step,
#   while the loss (of the trained weights) goes down: it looks as if averaging did harm. Give EMAModel float32 copies
#   of the parameters.
#
# Installs diffusers 0.42.1 and torch 2.13.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 diffusers==0.42.1 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import sys

import diffusers
import torch
from diffusers.training_utils import EMAModel

STEPS = 20_000


def average(dtype):
    """The average of a weight that is 0.5 for 20,000 steps, then 0.75 for as many."""
    weight = torch.nn.Parameter(torch.full((1,), 0.5, dtype=dtype))
    ema = EMAModel([weight], decay=0.9999)
    for value in (0.5, 0.75):
        with torch.no_grad():
            weight.fill_(value)
        for _ in range(STEPS):
            ema.step([weight])
    return round(float(ema.shadow_params[0]), 4)


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}: a weight of 0.5, then of 0.75 for {STEPS} steps")
seen = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    seen.append(average(dtype))
    print(f"  {str(dtype):15} average {seen[-1]}")
if not (seen[0] > 0.74 and seen[1:] == [0.5, 0.5]):
    sys.exit("CHANGED: this is no longer what happens")
print("as described: in half precision the average has not moved")
PYTHON
