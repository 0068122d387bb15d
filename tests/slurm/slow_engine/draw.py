"""Draws one square per image, and leaves a trace of when.

Variables of the environment tell it what to do on the way: SLOW_TRACE, a file that gets a line at the
beginning and at the end of each batch; SLOW_SECONDS, time per batch; SLOW_HANG, a file whose existence says
that a batch already hung once; SLOW_GATE, a file without which no batch but the first, number 0, goes on;
SLOW_MEGABYTES, memory it takes.
"""

import os
import time
from pathlib import Path

import numpy as np

from gen4det.data.masks import box_of_rle, mask_to_rle
from gen4det.engines import base


class Drawer(base.Drawer):
    """Squares."""

    def synthesize(self, batches):
        for rows in batches:
            trace("begin", rows[0]["batch"])
            hold = np.ones(int(os.environ.get("SLOW_MEGABYTES", "0")) * 2**17)
            time.sleep(float(os.environ.get("SLOW_SECONDS", "0")))
            hang_once()
            wait_at_gate(rows[0]["batch"])
            del hold
            trace("end", rows[0]["batch"])
            yield [draw(row) for row in rows]


def trace(what, batch):
    if path := os.environ.get("SLOW_TRACE"):
        with open(path, "a") as stream:
            print(what, batch, time.time(), os.environ.get("SLURM_JOB_ID"), file=stream)


def hang_once():
    if (path := os.environ.get("SLOW_HANG")) and not Path(path).exists():
        Path(path).touch()
        end = time.monotonic() + 600
        while time.monotonic() < end:  # a signal wakes a sleep; this one is deaf
            time.sleep(60)


def wait_at_gate(batch):
    path = os.environ.get("SLOW_GATE")
    while batch and path and not Path(path).exists():  # deaf, too
        time.sleep(0.1)


def draw(row):
    x, y = np.random.default_rng(row["seed"]).integers(0, 40, 2)
    mask = np.zeros((64, 64), bool)
    mask[y : y + 20, x : x + 20] = True
    image = np.where(mask[..., None], np.uint8(row["seed"] % 256), np.uint8(255)).repeat(3, axis=2)
    rle = mask_to_rle(mask)
    return base.Generated(row, image, [base.Instance(row["category"], box_of_rle(rle), rle)])
