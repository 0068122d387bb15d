"""A tiny run of InstaGen: two base categories (square, disc) and a novel one (ring), four images each."""

import json
from pathlib import Path

from gen4det.data.datasets import Dataset, load_dataset
from gen4det.data.shards import load_shard, shard_identity
from gen4det.data.source_settings import SubsetDataset
from gen4det.data.subsets import write_subset
from gen4det.diffusion.settings import FoundationSettings, ModelSource
from gen4det.engines.base import Generated, Inputs, engine_module, load_worker
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.training.stop import Deadline

SQUARE, DISC, RING = 3, 7, 20
SHAPE = {
    "channels": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "queries": 12,
    "heads": 4,
    "feed_forward": 32,
    "text_heads": 2,
    "text_feed_forward": 32,
    "fusion_channels": 32,
}
SMALL = {
    "size": 64,
    "generator": {"epochs": 0.5, "batch_size": 4, "micro_batch": 2, "ema_decay": 0.9},
    "images": {
        "base_per_category": 4,
        "novel_per_category": 4,
        "denoising": {"scheduler": "ddim", "steps": 3, "guidance": 3.0},
    },
    "features": {"precision": "float32"},
    "head": {
        "shape": SHAPE,
        "epochs": 4,
        "self_training_from": 2,
        "batch_size": 4,
        "micro_batch": 2,
        "learning_rate": 1e-3,
    },
}


def small(**changes: object) -> Settings:
    """Settings of the tiny run, sections changed key by key."""
    values = {key: dict(it) if isinstance(it, dict) else it for key, it in SMALL.items()}
    for key, change in changes.items():
        values[key] = values[key] | change if isinstance(values.get(key), dict) else change
    return Settings(**values)


def without_novel_labels(whole: Dataset, folder: Path) -> Dataset:
    """The data set whose training images have no label of a ring."""
    folder.mkdir()
    write_subset(
        "tiny-base",
        SubsetDataset(source="subset", of="tiny", labels="not-rare"),
        whole.path,
        folder / "dataset.json",
    )
    return load_dataset(folder / "dataset.json")


class Run:
    """The steps by hand, each with what the ones before it left."""

    def __init__(self, settings: Settings, model: Path, dataset: Dataset, folder: Path):
        self.settings, self.dataset, self.folder = settings, dataset, folder
        self.foundation = FoundationSettings(diffusion=ModelSource(path=str(model)))
        self.generator, self.head = folder / "generator", folder / "head"
        self.shard, self.found = folder / "0.arrow", folder / "found.json"

    def worker(self, part: str, settings: Settings | None = None):
        """What does a step."""
        kind = part.partition("_")[0]
        inputs = Inputs(
            self.dataset,
            {"generator": self.generator, "head": self.head},
            {"images": [self.shard]},
            {"images": [self.found]},
        )
        module = engine_module("instagen", part)
        return load_worker(module, kind, settings or self.settings, self.foundation, 0, inputs)

    def fit(self, step: str, output: Path | None = None, stop: object = None, **options: object) -> dict:
        """A fit step."""
        output = output or getattr(self, step)
        return self.worker(f"fit_{step}", **options).fit(
            output.with_suffix(".work"), {"settings": 1}, output, stop or Deadline()
        )

    def draw(self, rows: list[dict], shard: Path, shards: tuple[int, int] = (0, 1)) -> list[Generated]:
        """Draw rows into a shard."""
        batches: dict[int, list[dict]] = {}
        for row in rows:
            batches.setdefault(row["batch"], []).append(row)
        own = [number for number in batches if number % shards[1] == shards[0]]
        drawn = []
        with ShardInProgress(shard.with_suffix(""), {"run": 1}, *shards) as work:
            drawer = self.worker("draw")
            for number, items in zip(own, drawer.synthesize(batches[it] for it in own), strict=True):
                work.save(number, items)
                drawn += items
            work.assemble(own, self.dataset.categories)
        return drawn

    def detect(self, answers: dict[int, list[list[float]]]) -> None:
        """Say what the labelling detector found: image id -> [category, score, x, y, w, h]."""
        of = shard_identity(load_shard(self.shard))
        found = {str(image): rows for image, rows in answers.items()}
        self.found.write_text(json.dumps({"of": of, "detections": found}))
