"""A data engine without a model, for tests of the stages: striped images and masks from the row's seed.

    python tests/stripes_engine.py generate --settings '{"engine": {"method": "stripes"}}' ...

runs a stage with it. What tests make it do on the way is told by environment variables, because settings
would become part of the result: STRIPES_LOG, a file that gets a line per drawn batch; STRIPES_SLEEP, seconds
per batch; STRIPES_KILL_AT, number of the batch at which the process kills itself.
"""

import os
import signal
import sys
import time
import types
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Literal

import numpy as np

from gen4det.core.provenance import seed_for
from gen4det.data.masks import box_of_rle, mask_to_rle
from gen4det.engines import base
from gen4det.engines.settings import EngineSettings
from gen4det.stages import _cli, _engine

SIZE = (40, 60)


class Settings(EngineSettings):
    """Settings of the test engine."""

    method: Literal["stripes"] = "stripes"
    images: int = 14
    batch_size: int = 2


class Engine(base.Engine):
    """Every image asks for three objects; the seed decides which are rejected and which image is dropped."""

    settings: Settings
    unet_calls = 0

    def plan(self, dataset):
        categories = [category["id"] for category in dataset.train.load()["categories"]]
        return [
            {
                "index": index,
                "batch": index // self.settings.batch_size,
                "seed": seed_for(self.run_seed, "stripes", index),
                "categories": [categories[(index + i) % len(categories)] for i in range(3)],
            }
            for index in range(self.settings.images)
        ]

    def synthesize(self, dataset, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        for rows in batches:
            if os.environ.get("STRIPES_KILL_AT") == str(rows[0]["batch"]):
                os.kill(os.getpid(), signal.SIGKILL)
            if log := os.environ.get("STRIPES_LOG"):
                with open(log, "a") as stream:
                    print(rows[0]["batch"], file=stream)
            time.sleep(float(os.environ.get("STRIPES_SLEEP", "0")))
            self.unet_calls += 5
            yield [draw(row) for row in rows]


def draw(row: dict) -> base.Generated:
    """One image; about a third of its objects are rejected, some have a box only or a score."""
    rng = np.random.default_rng(row["seed"])
    height, width = SIZE
    image = rng.integers(0, 255, (1, width, 3), dtype=np.uint8).repeat(height, axis=0)
    instances, rejected = [], []
    for category in row["categories"]:
        x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
        w, h = (int(side) for side in rng.integers(3, 20, 2))
        if rng.random() < 0.3:
            rejected.append({"reason": "component too small", "category_id": category, "bbox": [x, y, w, h]})
            continue
        mask = np.zeros(SIZE, bool)
        mask[y : y + h, x : x + w] = True
        mask[y + h // 2, x + w // 2] = w < 3 or h < 3  # a hole
        rle = mask_to_rle(mask)
        score = round(float(rng.random()), 3) if rng.random() < 0.5 else None
        instances.append(base.Instance(category, box_of_rle(rle), rle, score))
    keep = bool(instances) and rng.random() < 0.85
    return base.Generated(row, image, instances, rejected, keep)


def install() -> None:
    """Make the method "stripes" known to this process."""
    this = sys.modules[Engine.__module__]
    package = types.ModuleType("gen4det.engines.stripes")
    package.__path__ = []
    sys.modules[package.__name__] = package
    for name in ("settings", "engine"):
        sys.modules[f"{package.__name__}.{name}"] = this
    known = base.known_methods
    base.known_methods = lambda: [*known(), "stripes"]
    _engine.Drawing.module = property(lambda self: "gen4det.engines.base")


if __name__ == "__main__":
    install()
    stage = import_module(f"gen4det.stages.{sys.argv.pop(1)}")
    _cli.run(stage.main)
