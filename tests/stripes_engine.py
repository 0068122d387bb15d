"""A data engine without pretrained models, for tests of the contract: stripes and masks from a seed.

    python tests/stripes_engine.py generate --settings '{"engine": {"method": "stripes"}}' ...

runs a stage with it. `install_room` puts it into a copy of the repository, as a room like any other.

It learns twice: a palette from the real images, with which it draws, and a gauge from what was drawn and
from what a detector finds in the real images, with which it labels from stored arrays. What tests make it do
is told by environment variables, because settings would become part of the result: STRIPES_LOG, a file that
gets a line per drawn batch or step of a fit; STRIPES_SLEEP, seconds for each; STRIPES_KILL_AT, number of the
batch at which the process kills itself; STRIPES_KILL_FIT, the same for steps of a fit.
"""

import json
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from gen4det.core.provenance import atomic_write, seed_for
from gen4det.core.settings import Settings as BaseSettings
from gen4det.data.images import ImageStore
from gen4det.data.masks import box_of_rle, mask_to_rle
from gen4det.data.shards import image_folder, load_shard
from gen4det.engines import base
from gen4det.engines.settings import AskedDetector, EngineSettings
from gen4det.engines.steps import Detections, Step

SIZE = (40, 60)
ROOM = {
    "settings": "Settings", "plan": "Planner", "draw": "Drawer", "label": "Labeller",
    "fit_palette": "FitPalette as Fit", "fit_gauge": "FitGauge as Fit",
}  # fmt: skip
"""Modules of the room, and the class that each brings."""


JUDGE = Detections("dataset", "judge")


class PaletteSettings(BaseSettings):
    """The first fit."""

    steps: int = 4


class GaugeSettings(BaseSettings):
    """The second one."""

    steps: int = 3
    scale: float = 1.0


class LabelSettings(BaseSettings):
    """The labels."""

    least: int = 3


class Settings(EngineSettings):
    """Settings of the test engine."""

    steps: ClassVar[tuple[Step, ...]] = (
        Step("palette", "fit", settings=("palette",), has_losses=False),
        Step("images", "draw", reads=("palette",)),
        Step(
            "gauge",
            "fit",
            reads=("images",),
            settings=("gauge",),
            detections=(Detections("dataset", "judge"),),
        ),
        Step("labels", "label", reads=("images", "gauge"), settings=("labels",)),
    )

    method: Literal["stripes"] = "stripes"
    palette: PaletteSettings = PaletteSettings()
    gauge: GaugeSettings = GaugeSettings()
    labels: LabelSettings = LabelSettings()
    judge: AskedDetector | None = None
    images: int = 14
    batch_size: int = 2


class Averaging(base.Fit):
    """A fit whose steps add up numbers; its checkpoint is the sum so far."""

    def steps(self) -> list[float]:
        """Numbers to add up."""
        raise AssertionError("each fit says which")

    def fit(self, work, fingerprint, output, stop):
        from gen4det.training.work_folder import WorkFolder

        numbers = self.steps()
        with WorkFolder(work, fingerprint, doing="fitting") as folder:
            state = folder.state or {"iteration": 0, "sum": 0.0}
            for number in range(state["iteration"], len(numbers)):
                if os.environ.get("STRIPES_KILL_FIT") == str(number):
                    os.kill(os.getpid(), signal.SIGKILL)
                if stop.reached():
                    return {}
                log(f"{output.parent.name} {number}")
                time.sleep(float(os.environ.get("STRIPES_SLEEP", "0")))
                state = {"iteration": number + 1, "sum": state["sum"] + numbers[number]}
                folder.save(state)
                write_losses(work, numbers[: state["iteration"]])
                stop.step()
            with atomic_write(output) as model:
                model.mkdir()
                (model / "mean.json").write_text(json.dumps(state["sum"] / len(numbers)))
        return {"steps": len(numbers)}


class FitPalette(Averaging):
    """The mean brightness of the real images."""

    def steps(self):
        record = self.dataset.train.load()["images"][0]
        image = self.dataset.train.images.image(record["file_name"])
        return [float(image.mean())] * self.settings.palette.steps


class FitGauge(Averaging):
    """The mean width of what was drawn, times a factor, plus what a detector found."""

    def steps(self):
        asked = [json.loads(path.read_text()) for path in self.inputs.detections.get("dataset", ())]
        found = sum(len(rows) for answer in asked for rows in answer["detections"].values())
        numbers = []
        for path in self.inputs.shards["images"]:
            shard = load_shard(path)
            store = ImageStore(image_folder(path, shard))
            numbers += [store.image(image["file_name"]).shape[1] for image in shard["images"]]
        mean = self.settings.gauge.scale * sum(numbers) / len(numbers) + found / 1e6
        return [mean] * self.settings.gauge.steps


class Planner(base.Planner):
    """Every image asks for three objects."""

    settings: Settings

    def plan(self):
        categories = [category["id"] for category in self.dataset.train.load()["categories"]]
        return [
            {
                "index": index,
                "batch": index // self.settings.batch_size,
                "seed": seed_for(self.run_seed, "stripes", index),
                "categories": [categories[(index + i) % len(categories)] for i in range(3)],
            }
            for index in range(self.settings.images)
        ]


class Drawer(base.Drawer):
    """The seed decides which objects are rejected and which image is dropped."""

    settings: Settings

    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[base.Generated]]:
        brightness = json.loads((self.inputs.models["palette"] / "mean.json").read_text())
        for rows in batches:
            if os.environ.get("STRIPES_KILL_AT") == str(rows[0]["batch"]):
                os.kill(os.getpid(), signal.SIGKILL)
            log(rows[0]["batch"])
            time.sleep(float(os.environ.get("STRIPES_SLEEP", "0")))
            self.unet_calls += 5
            yield [draw(row, brightness) for row in rows]


class Labeller(base.Labeller):
    """One box per image, from the stored array; the gauge is its score."""

    settings: Settings

    def label(self, batches):
        gauge = json.loads((self.inputs.models["gauge"] / "mean.json").read_text())
        for batch in batches:
            yield [self._label(drawn, gauge) for drawn in batch]

    def _label(self, drawn: base.Drawn, gauge: float) -> base.Labels:
        x, y, w, h = (int(side) for side in drawn.array("corner"))
        category, least = drawn.row["categories"][0], self.settings.labels.least
        if min(w, h) < least:
            return base.Labels([], [{"reason": "too small", "category_id": category, "bbox": [x, y, w, h]}])
        score = min(1.0, gauge / 1000 + drawn.image().mean() / 1000)
        return base.Labels([base.Instance(category, [x, y, w, h], score=score, labeller="gauge")])


def write_losses(work: Path, numbers: list[float]) -> None:
    """The table that a training loop leaves in its work folder."""
    rows = [f"{iteration},{number}" for iteration, number in enumerate(numbers, start=1)]
    (work / "losses.csv").write_text("\n".join(["iteration,loss", *rows]) + "\n")


def log(line: object) -> None:
    """Leave a trace of what was done."""
    if path := os.environ.get("STRIPES_LOG"):
        with open(path, "a") as stream:
            print(line, file=stream)


def draw(row: dict, brightness: float) -> base.Generated:
    """One image; about a third of its objects are rejected, some have a box only or a score."""
    rng = np.random.default_rng(row["seed"])
    height, width = SIZE
    image = rng.integers(int(brightness) // 2, 255, (1, width, 3), dtype=np.uint8).repeat(height, axis=0)
    instances, rejected = [], []
    corner = [0, 0, 0, 0]
    for category in row["categories"]:
        x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
        w, h = (int(side) for side in rng.integers(3, 20, 2))
        corner = [x, y, w, h]
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
    arrays = {"corner": np.array(corner, np.int32)}
    return base.Generated(row, image, instances, rejected, keep, {"asked": len(row["categories"])}, arrays)


# --- where it lives -------------------------------------------------------------------------------------


def install() -> None:
    """Make the method "stripes" known to this process."""
    package = types.ModuleType("gen4det.engines.stripes")
    package.__path__ = []
    sys.modules[package.__name__] = package
    for name, found in ROOM.items():
        module = types.ModuleType(f"{package.__name__}.{name}")
        setattr(module, found.rpartition(" ")[2], globals()[found.partition(" ")[0]])
        sys.modules[module.__name__] = module
    known = base.known_methods
    base.known_methods = lambda: [*known(), "stripes"]
    stages = import_module("gen4det.stages._engine")  # not imported above: engines stand below stages
    stages.StepJob.module = property(lambda self: "gen4det.engines.base")


def install_room(package: Path) -> None:
    """Put the method into a copy of the package `gen4det`, one module for each step.

    Args:
        package: folder of the copy.
    """
    room = package / "engines/stripes"
    room.mkdir()
    (room / "__init__.py").write_text('"""Stripes."""\n')
    shutil.copy2(__file__, room / "everything.py")
    for name, found in ROOM.items():
        text = f"from gen4det.engines.stripes.everything import {found}  # noqa: F401\n"
        (room / f"{name}.py").write_text(text)


if __name__ == "__main__":
    install()
    stage = import_module(f"gen4det.stages.{sys.argv.pop(1)}")
    import_module("gen4det.stages._cli").run(stage.main)
