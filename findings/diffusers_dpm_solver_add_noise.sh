#!/bin/sh
# diffusers: DPMSolverMultistepScheduler.add_noise puts the wrong amount of noise on an image, silently.
#
# Expected: add_noise(image, noise, t) is the forward process. How much noise level t means is a property of the
#   noise schedule the model was trained with; DDPMScheduler and DDIMScheduler of the same betas say so, whatever
#   number of sampling steps is set.
# Happens: DPMSolverMultistepScheduler looks t up in the list of its sampling steps.
#   - After set_timesteps(20), every t that is not in the list gets the noise of the last (cleanest) step: a level
#     that should be nearly pure noise is nearly the clean image. No error, no warning.
#   - Before set_timesteps the list is the other way round: t = 10 gets the noise of t = 989.
# Means: who fine-tunes, or noises images to random levels, with the scheduler of a pipeline that was switched to
#   DPM-Solver++ (a common choice for sampling) teaches the model wrong levels, and sees a loss that looks fine.
#   Take DDPMScheduler.from_config(pipeline.scheduler.config) for adding noise.
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
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

STABLE_DIFFUSION = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
LEVELS = (10, 100, 501, 900, 990)


def shares(scheduler):
    """Share of the noise in a noised image, at each level: the image is 0, the noise is 1."""
    image, noise = torch.zeros(len(LEVELS), 1), torch.ones(len(LEVELS), 1)
    return [round(float(value), 3) for value in scheduler.add_noise(image, noise, torch.tensor(LEVELS))]


def after(steps, kind):
    scheduler = kind(**STABLE_DIFFUSION)
    if steps:
        scheduler.set_timesteps(steps)
    return shares(scheduler)


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
truth = after(None, DDPMScheduler)
ddim = after(20, DDIMScheduler)
fresh = after(None, DPMSolverMultistepScheduler)
set_20 = after(20, DPMSolverMultistepScheduler)
print(f"{'share of noise at level':42}", *(f"{level:6}" for level in LEVELS))
for name, row in (
    ("DDPM (the forward process)", truth),
    ("DDIM, 20 steps set", ddim),
    ("DPMSolverMultistep, no steps set", fresh),
    ("DPMSolverMultistep, 20 steps set", set_20),
):
    print(f"{name:42}", *(f"{value:6.3f}" for value in row))

mirrored = all(abs(a - b) < 0.01 for a, b in zip(fresh, [0.997, 0.993, 0.849, 0.323, 0.093]))
cleanest = set_20[0] == set_20[2] == set_20[3] == set_20[4] < 0.25
if ddim == truth and mirrored and cleanest:
    print("as described: levels mirrored before set_timesteps, the cleanest step's noise afterwards, no error")
else:
    sys.exit("CHANGED: this is no longer what happens")
PYTHON
