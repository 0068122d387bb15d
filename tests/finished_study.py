"""Results of a tiny study as the workflow leaves them: by its real stages where those train nothing, with
records by their real writer where they would."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

from test_filter_stage import NAMES, write_shards, write_toy_dataset

from gen4det.core.provenance import RunRecord, write_json
from gen4det.evaluation.settings import METRICS
from gen4det.stages import filter as filter_stage
from gen4det.stages import measure_set, plot, study_page

DETECTOR = {"config": "config/detectors/toy.py", "iterations": 6, "schedule": 2.0}


def call(stage, settings: dict, *arguments: object, words: Iterable[str] = ()) -> None:
    """Run a stage's command line in this process."""
    command = ["stage", *words, "--settings", json.dumps({"settings": settings}), *map(str, arguments)]
    with mock.patch.object(sys, "argv", command):
        stage.main()


def metrics_of(value: float, *, masks: bool = True) -> dict:
    """A metrics.json in which every number is about `value`."""
    values = {name: value for name in METRICS}
    categories = [
        {"id": number, "name": name, "box_AP": value + number, "mask_AP": value - number, "frequency": "r",
         "split": None, "images_train": number}
        for number, name in NAMES.items()
    ]  # fmt: skip
    return {
        "box": values,
        "mask": values if masks else None,
        "per_category": categories,
        "validation": {"dataset": "toy", "protocol": "lvis"},
    }


class Results:
    """Results below a folder, to be asked for one after the other.

    Args:
        folder: `results:` of the configuration.
    """

    def __init__(self, folder: Path, *, detector: dict = DETECTOR):
        self.folder, self.detector = folder, detector
        self.dataset = write_toy_dataset(folder / "data" / "toy", "lvis")
        with RunRecord(
            self.dataset, settings={"source": "miniature", "seed": 7}, code=("gen4det.stages.render",)
        ):
            pass

    def draw(self, engine: str, **chosen: object) -> Path:
        """A synthetic set; `chosen`: settings of its filter."""
        place = self.folder / "synthetic" / "toy" / engine
        shards, manifest = write_shards(place / "shards"), place / "manifest.jsonl"
        manifest.write_text('{"index": 0, "seed": 1}\n')
        code = "gen4det.stages.generate"
        with RunRecord(manifest, settings={}, code=("gen4det.stages.plan",), seeds={"run_seed": 3}):
            pass
        for shard in shards:
            where = shard.with_suffix("")
            with RunRecord(
                where, settings={}, code=(code,), seeds={"run_seed": 3}, inputs=(manifest, self.dataset)
            ):
                pass
        made = place / "set.json"
        call(
            filter_stage, {"filter": chosen}, "--dataset", self.dataset, "--shards", *shards,
            "--output", made,
        )  # fmt: skip
        records = [shard.with_suffix(".record.json") for shard in shards]
        call(
            measure_set, {}, "--synthetic", made,
            "--records", *records, "--output", place / "measures.json",
        )  # fmt: skip
        return made

    def train(self, arm: str, seed: int, found: dict, *sets: Path) -> Path:
        """Metrics of a training, with weights, predictions and records around them."""
        place = self.folder / "detectors" / "toy" / "mask-rcnn" / arm / f"seed{seed}"
        weights, predictions = place / "weights.safetensors", place / "toy" / "predictions.npz"
        predictions.parent.mkdir(parents=True)
        weights.write_bytes(b"weights" + bytes([seed]))
        predictions.write_bytes(b"predictions")
        losses = "".join(f"{step},{6 / step},{3 / step}\n" for step in range(1, 13))
        (place / "losses.csv").write_text(
            "iteration,loss,loss_cls\n" + ("" if "refused" in found else losses)
        )
        settings = {"detector": self.detector, "real": True, "seed": seed}
        with RunRecord(
            weights,
            settings=settings,
            code=("gen4det.stages.train",),
            seeds={"seed": seed},
            inputs=(self.dataset, *sets),
        ) as record:
            record.add(iterations=12, batch_size=8, training_seconds=2.5, images={"toy": 2})
        with RunRecord(
            predictions, settings={}, code=("gen4det.stages.predict",), inputs=(self.dataset, weights)
        ):
            pass
        metrics = predictions.with_name("metrics.json")
        with RunRecord(
            metrics, settings={"evaluation": {}}, code=("gen4det.stages.measure",), inputs=(predictions,)
        ) as record:
            write_json(metrics, found)
            record.add(images=2)
        return metrics


def page_of(
    results: Results,
    settings: dict,
    metrics: list[str],
    sets: dict[str, Path],
    name: str = "study",
    *,
    figure: bool = False,
) -> Path:
    """The page of a study, with its figure if asked."""
    output = results.folder / "reports" / name / "index.html"
    figures = []
    if figure:
        drawn = results.folder / "figures" / f"{name}.pdf"
        call(plot, settings["table"], "--metrics", *metrics, "--output", drawn, words=["figure"])
        figures = [f"Average precision={drawn.with_suffix('.png')}"]
    call(
        study_page, settings, "--metrics", *metrics,
        "--synthetic", *(f"{name}={path}" for name, path in sets.items()),
        "--sets", *(f"{name}={path.with_name('measures.json')}" for name, path in sets.items()),
        "--figures", *figures, "--output", output,
    )  # fmt: skip
    return output
