"""Promise: the workflow knows engines by their contract; adding one touches no rule."""

import json
from collections import Counter

import pytest

pytestmark = pytest.mark.workflow

SETTINGS = '''
"""Settings of squares."""

from typing import ClassVar, Literal

from gen4det.engines.settings import EngineSettings


class Settings(EngineSettings):
    """Squares of one colour, which is learnt."""

    models: ClassVar[tuple[str, ...]] = ()
    needs_fit: ClassVar[bool] = True

    method: Literal["squares"] = "squares"
    images: int = 6
'''
ENGINE = '''
"""Draws one square per image, of the colour that fit found."""

import json

import numpy as np

from gen4det.data.masks import box_of_rle, mask_to_rle
from gen4det.engines import base
from gen4det.core.provenance import seed_for


class Engine(base.Engine):
    """Squares."""

    needs_fit = True

    def fit(self, dataset, work_dir, output):
        image = dataset.train.images.image(dataset.train.load()["images"][0]["file_name"])
        output.mkdir(parents=True)
        (output / "colour.json").write_text(json.dumps(image.mean((0, 1)).tolist()))

    def plan(self, dataset):
        category = dataset.train.load()["categories"][0]["id"]
        return [
            {"index": i, "batch": i // 2, "seed": seed_for(self.run_seed, "squares", i), "category": category}
            for i in range(self.settings.images)
        ]

    def synthesize(self, dataset, batches):
        colour = json.loads((self.model / "colour.json").read_text())
        for rows in batches:
            yield [self.draw(row, colour) for row in rows]

    def draw(self, row, colour):
        x, y = np.random.default_rng(row["seed"]).integers(0, 40, 2)
        mask = np.zeros((64, 64), bool)
        mask[y : y + 20, x : x + 20] = True
        image = np.where(mask[..., None], np.uint8(colour), np.uint8(255)).astype(np.uint8)
        rle = mask_to_rle(mask)
        return base.Generated(row, image, [base.Instance(row["category"], box_of_rle(rle), rle)])
'''


def test_a_new_engine_is_fitted_planned_drawn_and_filtered(checkout):
    room = checkout / "workflow/gen4det/engines/squares"
    room.mkdir()
    (room / "__init__.py").write_text('"""Squares."""\n')
    (room / "settings.py").write_text(SETTINGS)
    (room / "engine.py").write_text(ENGINE)
    (checkout / "config/engines/squares.yaml").write_text("squares:\n  method: squares\n")
    checkout.edit(
        "config/studies/lvis_rare.yaml", "\nmetrics:", "  squares: {synthetic: [squares]}\n\nmetrics:"
    )

    new = Counter(finetune=1, plan=1, generate=2, filter=1, train=1, predict=1, measure=1)
    assert checkout.planned() == new + Counter(table=1, figure=1, gallery=1)
    annotations = "results/test/synthetic/lvis/squares/annotations.json"
    checkout.make(annotations)
    assert len(json.loads((checkout / annotations).read_text())["annotations"]) == 6
    assert (checkout / "results/test/engines/lvis/squares/model.record.json").is_file()
