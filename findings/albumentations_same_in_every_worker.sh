#!/bin/sh
# albumentations: with PyTorch's DataLoader every worker applies the same random augmentations, and so does every epoch.
#
# Expected: A.Compose(...) without a seed is random. Since version 1.9 PyTorch gives numpy and random a different state
#   in each worker and epoch, which made an old trap harmless, and older versions of albumentations, which drew from
#   those, profited from it.
# Happens: since 1.4.21 Compose has generators of its own, made once, in the main process. Every worker gets a copy in
#   the same state, and workers are started anew for each epoch: the n-th image of each worker is flipped, cropped and
#   coloured alike, and in epoch 10 as in epoch 1. Only the pairing with images changes, by shuffling. Without workers
#   (num_workers=0) all is well, so that a look at some samples shows nothing.
# Means: with 8 workers and 1,000 images each draws from 125 different augmentations for the whole training, whatever
#   the number of epochs: an augmentation that is much weaker than its settings say. worker_init_fn with
#   dataset.transform.set_random_seed(torch.initial_seed() % 2**32) mends it. 2.0.8 is the last release under the MIT
#   licence; its successor albumentationsx, under the AGPL, has mended it.
#
# Installs albumentations 2.0.8 and torch 2.13.0 into a temporary folder. Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 albumentations==2.0.8 opencv-python-headless==4.12.0.88 \
    numpy==2.2.6
NO_ALBUMENTATIONS_UPDATE=1 "$work/venv/bin/python" - <<'PYTHON'
import sys

import albumentations
import numpy
import torch
from torch.utils.data import DataLoader, Dataset

RAMP = numpy.tile(numpy.arange(200, dtype=numpy.uint8)[None, :, None], (8, 1, 3))  # each column has its own value


class Crops(Dataset):
    """Where a random crop begins, for each of eight images."""

    def __init__(self):
        self.transform = albumentations.Compose([albumentations.RandomCrop(8, 8)])

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return int(self.transform(image=RAMP)["image"][0, 0, 0])


def reseed(worker):
    torch.utils.data.get_worker_info().dataset.transform.set_random_seed(torch.initial_seed() % 2**32)


def epochs(**settings):
    """Crops of three epochs; a batch is what one worker makes."""
    loader = DataLoader(Crops(), batch_size=4, **settings)
    return [[batch.tolist() for batch in loader] for _ in range(3)]


print(f"albumentations {albumentations.__version__}, torch {torch.__version__}: where crops begin")
seen = {}
for name, settings in (
    ("no workers", {}),
    ("two workers", {"num_workers": 2}),
    ("two workers, seeded anew", {"num_workers": 2, "worker_init_fn": reseed}),
):
    seen[name] = epochs(**settings)
    for epoch, batches in enumerate(seen[name], 1):
        print(f"  {name:25} epoch {epoch}: {batches[0]} {batches[1]}")


def distinct(name):
    return len({tuple(batch) for batches in seen[name] for batch in batches})


if [distinct(name) for name in seen] != [6, 1, 6]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: both workers and all epochs draw the same four crops")
PYTHON
