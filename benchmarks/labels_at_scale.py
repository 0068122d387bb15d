"""What millions of labels cost: choosing from them, starting to train on them, starting to draw.

Each build runs the same jobs in processes of its own, on the same random labels: ten in an image, with masks
of a real size, in shards; and a real training split beside them. Shown are CPU seconds, wall clock and
memory; `private` is what a process does not share with others that train on the same data, `peak` counts
mapped files, too.

  git worktree add ../before COMMIT
  python benchmarks/labels_at_scale.py --labels 4000000 --before ../before   # two builds, and the ratios
  python benchmarks/labels_at_scale.py --labels 40000000                     # this build alone

The build before must write and read shards as JSON. Needs about 300 bytes of disk for a label, twice with
--before.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gen4det.core.progress import progress
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset, write_split
from gen4det.data.images import ShardWriter
from gen4det.data.label_tables import LabelTableWriter
from gen4det.data.masks import area_of_rle, box_of_rle, mask_to_rle
from gen4det.data.shards import archive_digest

ROOT = Path(__file__).parents[1]
SIDE, PER_IMAGE, CATEGORIES = 512, 10, 1203
FILTER = {"min_score": 0.3, "min_box_side": 24, "max_instances": 9}
HEADER = ("job", "CPU s", "wall s", "peak MB", "private MB")

FIRST_BATCH = """
import sys
from pathlib import Path
from torch.utils.data import DataLoader
from mmengine.dataset import pseudo_collate
from gen4det.data.datasets import load_dataset
from gen4det.detection.datasets import DetectionDataset
from gen4det.detection.detectors import load_config
from gen4det.detection.settings import TrainSettings
from gen4det.detection.training import batch_sampler, load_sources
config, dataset, synthetic = sys.argv[1:]
settings = {"detector": {"config": config, "iterations": 10, "repeat_threshold": 0.001}, "seed": 0}
settings = TrainSettings.model_validate(settings)
sources, categories = load_sources(load_dataset(dataset), [Path(synthetic)], detector=settings.detector)
made = load_config(config, classes=len(categories), iterations=10)
data = DetectionDataset(sources, categories, made.train_pipeline, masks=True)
del sources
sampler = batch_sampler(data, settings, made.batch_size)
batch = next(iter(DataLoader(data, batch_sampler=sampler, collate_fn=pseudo_collate)))
assert len(batch["inputs"]) == made.batch_size
"""
GENERATE = """
import sys
from gen4det.data.datasets import load_dataset
dataset = load_dataset(sys.argv[1])
assert len(dataset.train.hash) == 64 and dataset.categories
"""
FILTER_STAGE = """
import runpy, sys
sys.argv[0] = "filter"
runpy.run_module("gen4det.stages.filter", run_name="__main__")
"""
AT_THE_END = """
import atexit
def show():
    for name in ("status", "smaps_rollup"):
        for line in open(f"/proc/self/{name}"):
            if line.startswith(("VmHWM:", "Anonymous:")):
                print(line.replace(":", "").replace("kB", ""))
atexit.register(show)
"""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=4_000_000)
    parser.add_argument("--real", type=int, help="labels of the training split; a quarter, up to a million")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="checkout of the build before")
    parser.add_argument("--folder", type=Path, help="where the data lies meanwhile; a temporary folder")
    args = parser.parse_args()
    real = args.real or min(1_000_000, args.labels // 4)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        work = Path(folder)
        masks = some_masks()
        write_real(work, masks, real)
        for number in range(args.shards):
            count = args.labels // args.shards // PER_IMAGE
            write_shard(work, masks, number, args.shards, count, plain=args.before is not None)
        size = sum(path.stat().st_size for path in (work / "new/shards").glob("*.arrow"))
        print(f"{args.labels:,} labels in {args.shards} shards, {size / 1e6:,.0f} MB; {real:,} real ones")
        builds = {"this build": (ROOT, work / "new", work / "data/dataset.json")}
        if args.before is not None:
            builds["build before"] = (args.before.resolve(), work / "old", work / "data/plain.json")
        rows = {name: measure(*build) for name, build in builds.items()}
    for name, measured in rows.items():
        print(f"\n{name}\n" + "".join(f"{cell:>16}" for cell in HEADER))
        for job, values in measured.items():
            print(f"{job:>16}" + "".join(f"{value:16,.1f}" for value in values))
    if args.before is not None:
        print("\nbuild before / this build\n" + "".join(f"{cell:>16}" for cell in HEADER))
        for job, values in rows["this build"].items():
            ratios = np.array(rows["build before"][job]) / np.maximum(values, 0.01)
            print(f"{job:>16}" + "".join(f"{ratio:16.1f}" for ratio in ratios))


# --- data -----------------------------------------------------------------------------------------


def some_masks() -> list[dict]:
    """Masks of objects with a ragged outline, with their boxes and areas."""
    rng, made = np.random.default_rng(0), []
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(300):
        cx, cy, rx, ry = rng.uniform([60, 60, 8, 8], [SIDE - 60, SIDE - 60, 60, 60])
        angle = np.arctan2(y - cy, x - cx)
        ragged = 1 + 0.1 * np.sin(rng.integers(3, 9) * angle) + 0.05 * np.sin(17 * angle)
        rle = mask_to_rle(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < ragged)
        made.append({"segmentation": rle, "bbox": box_of_rle(rle), "area": float(area_of_rle(rle))})
    return made


def labels_of(image: int, masks: list[dict], rng: random.Random) -> list[dict]:
    return [
        {
            "id": image * 1000 + place,
            "image_id": image,
            "category_id": 1 + int(CATEGORIES * rng.random() ** 3),
            "score": round(rng.random(), 4),
            **masks[rng.randrange(len(masks))],
        }
        for place in range(PER_IMAGE)
    ]


def categories() -> list[dict]:
    return [
        {"id": number, "name": f"category {number}", "frequency": "rcf"[number % 3], "image_count": 1}
        for number in range(1, CATEGORIES + 1)
    ]


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (90, 120, 150)).save(stream, "PNG")
    return stream.getvalue()


def write_real(work: Path, masks: list[dict], labels: int) -> None:
    """A training split, registered with a table and, for the build before, without."""
    folder, rng = work / "data", random.Random(1)
    ids = range(1, labels // PER_IMAGE + 1)
    size = {"height": SIDE, "width": SIDE}
    data = {
        "images": [{"id": it, "file_name": f"{it}.png", "coco_url": f"{it}.png", **size} for it in ids],
        "annotations": [label for it in ids for label in labels_of(it, masks, rng)],
        "categories": categories(),
    }
    train = write_split(folder, "train", data)
    content = picture()
    with ShardWriter(folder / "train.zip") as writer:
        for it in ids:
            writer.add(f"{it}.png", content)
    place = {"images": "train.zip", "images_sha256": "0" * 64}
    for name, split in (("dataset", train), ("plain", {"annotations": "train.json"})):
        descriptor = SplitDescriptor(**split, **place)
        known = {"name": "real", "format": "lvis", "categories": data["categories"]}
        write_dataset(folder / f"{name}.json", DatasetDescriptor(train=descriptor, **known))


def write_shard(work: Path, masks: list[dict], number: int, shards: int, images: int, *, plain: bool) -> None:
    """A shard as a table and, for the build before, as JSON, over the same archive; never whole in memory."""
    archive = work / f"new/shards/{number:05d}.zip"
    content = picture()
    ids = [1_000_000 + index * shards + number for index in range(images)]
    with ShardWriter(archive) as writer:
        for it in ids:
            writer.add(f"{it:012d}.png", content)
    info = {"shard": number, "shards": shards, "run": "r", "archive": archive.name}
    about = {"info": info | {"digest": archive_digest(archive)}, "categories": categories()}

    def records(rng: random.Random) -> Iterator[tuple[dict, list[dict]]]:
        for it in progress(ids, f"shard {number}", "image"):
            name = f"{archive.name}/{it:012d}.png"
            yield {"id": it, "file_name": name, "height": SIDE, "width": SIDE}, labels_of(it, masks, rng)

    with LabelTableWriter(archive.with_suffix(".arrow"), about) as writer:
        for image, labels in records(random.Random(number)):
            writer.add(image, labels)
    if plain:
        folder = work / "old/shards"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(archive, folder / archive.name)
        with open(folder / f"{number:05d}.json", "w") as stream:
            stream.write(json.dumps(about)[:-1] + ', "rejected": [], "annotations": [')
            of_shard, comma = [], ""
            for image, labels in records(random.Random(number)):
                of_shard.append(image)
                stream.write(comma + json.dumps(labels, separators=(",", ":"))[1:-1])
                comma = ","
            stream.write('], "images": ' + json.dumps(of_shard, separators=(",", ":")) + "}")


# --- jobs -----------------------------------------------------------------------------------------


def measure(build: Path, folder: Path, dataset: Path) -> dict[str, tuple]:
    """{job: what it took} of one build."""
    shards = sorted(path for path in (folder / "shards").iterdir() if path.suffix != ".zip")
    is_new = shards[0].suffix == ".arrow"
    output = folder / ("set.json" if is_new else "annotations.json")
    rest = [] if is_new else ["--rejected", str(folder / "rejected.json")]
    config = str(build / "config/detectors/miniature_mask_rcnn.py")
    settings = json.dumps({"settings": {"filter": FILTER}})
    choose = ["-c", AT_THE_END + FILTER_STAGE, "--settings", settings, "--dataset", str(dataset)]
    choose += ["--shards", *map(str, shards), "--output", str(output), *rest]
    return {
        "filter": run(build, choose),
        "first batch": run(build, ["-c", AT_THE_END + FIRST_BATCH, config, str(dataset), str(output)]),
        "start of drawing": run(build, ["-c", AT_THE_END + GENERATE, str(dataset)]),
    }


def run(build: Path, arguments: list[str]) -> tuple[float, float, float, float]:
    """CPU seconds, wall clock in seconds, peak and private memory in MB of a process; the last 0 if
    unknown."""
    environment = os.environ | {"PYTHONPATH": str(build / "workflow"), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    answer = process.stdout.read() + process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"{build}: {' '.join(arguments[:2])[:80]} failed:\n{answer[-3000:]}")
    said = dict(words for line in answer.splitlines() if len(words := line.split()) == 2)
    peak, private = (int(said[name]) / 1000 for name in ("VmHWM", "Anonymous"))
    return used.ru_utime + used.ru_stime, wall, peak, private


if __name__ == "__main__":
    main()
