"""A filter whose shards are shared by several processes chooses what one process chooses."""

import json
import random
import subprocess
import sys

import pytest

from filtered import write_shard
from gen4det.core.errors import InputError
from gen4det.core.provenance import write_json
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, load_dataset, write_dataset, write_split
from gen4det.data.label_sets import open_set
from gen4det.data.label_tables import LabelTable
from gen4det.data.shards import shard_identity
from gen4det.filters.measurements import ScoreFiles
from gen4det.filters.selection import SHARDS_APART

CATEGORIES = [{"id": 1, "name": "cup"}, {"id": 4, "name": "key"}]
FILTER = {
    "min_box_side": 6, "max_images": 20,
    "aesthetic": {"enabled": True, "threshold": 0.3},
    "agreement": {"enabled": True, "min_score": 0.4, "min_iou": 0.3},
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Shards of a few images with scores and detections, whose files are named in another order."""
    root, rng = tmp_path_factory.mktemp("drawn"), random.Random(0)
    split = write_split(root / "data", "train", {"images": [], "annotations": [], "categories": CATEGORIES})
    train = SplitDescriptor(**split, images=".")
    write_dataset(root / "data/dataset.json", DatasetDescriptor(name="names", format="lvis", train=train))
    training = load_dataset(root / "data/dataset.json").train.hash
    for number in range(SHARDS_APART):
        images = [
            {"id": 3 * number + k, "file_name": f"{k}.png", "width": 60, "height": 50} for k in range(3)
        ]
        labels = []
        for image in images:
            for _ in range(4):
                x, y, w, h = rng.randrange(20), rng.randrange(20), rng.randrange(4, 30), rng.randrange(4, 25)
                box = {"bbox": [x, y, w, h], "area": w * h, "category_id": rng.choice([1, 4])}
                labels.append({"id": 12 * number + len(labels), "image_id": image["id"], **box})
        data = {"images": images, "annotations": labels, "categories": CATEGORIES}
        path = write_shard(root / "shards", data, number=number, shards=SHARDS_APART)
        about = {"of": shard_identity(LabelTable.open(path).about)}
        name = f"{(7 * number) % SHARDS_APART:05d}.json"
        scores = {str(image["id"]): rng.random() for image in images}
        write_json(root / "aesthetic" / name, about | {"models": "m", "scores": scores})
        boxes: dict[str, list] = {}
        for label in labels:
            found = [label["category_id"], round(rng.random(), 2), *label["bbox"]]
            boxes.setdefault(str(label["image_id"]), []).append(found)
        more = {"split": training, "detector": "d", "max_per_image": 300, "detections": boxes}
        write_json(root / "detections" / name, about | more)
    return root


def choose(root, output, workers: int, **more) -> subprocess.CompletedProcess:
    files = {kind: sorted((root / kind).iterdir()) for kind in ("aesthetic", "detections")}
    settings = {"settings": {"filter": FILTER | more}}
    command = [sys.executable, "-m", "gen4det.stages.filter", "--settings", json.dumps(settings)]
    command += ["--dataset", root / "data/dataset.json", "--shards", *sorted(root.glob("shards/*.arrow"))]
    for kind, paths in files.items():
        command += [f"--{kind}", *paths]
    command += ["--workers", workers, "--output", output / "set.json"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)


def test_several_processes_keep_the_labels_that_one_keeps_to_the_byte(drawn):
    for workers in (1, 2):
        done = choose(drawn, drawn / f"by{workers}", workers)
        assert done.returncode == 0, done.stderr
    for name in ("set.json", "verdicts.arrow", "filter.csv"):
        assert (drawn / "by1" / name).read_bytes() == (drawn / "by2" / name).read_bytes(), name
    labels = open_set(drawn / "by1/set.json")
    assert len(labels.rows_in_order()) == 20
    found = json.loads((drawn / "by1/set.json").read_text())["rejected"]
    assert {"min_box_side", "aesthetic", "max_images", "low_score"} <= set(found)


def test_bad_input_of_a_shard_is_one_line_from_several_processes_too(drawn):
    done = choose(drawn, drawn / "bad", 2, agreement={"enabled": True, "max_per_image": 400})
    assert done.returncode == 2 and not (drawn / "bad/set.json").exists()
    assert "300 detections per image at most" in done.stderr and "Traceback" not in done.stderr
    table = LabelTable.open(drawn / "shards/00009.arrow").as_coco()
    broken = table | {"annotations": [table["annotations"][0] | {"category_id": 3}]}
    del broken["rejected"]
    write_shard(drawn / "shards", broken, number=9, shards=SHARDS_APART)
    done = choose(drawn, drawn / "bad", 2, min_box_side=0, aesthetic={}, agreement={}, max_images=None)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "00009.arrow: annotation 108: unknown category" in done.stderr


def test_measurements_are_found_in_any_order_and_twice(drawn):
    tables = [LabelTable.open(path) for path in sorted(drawn.glob("shards/*.arrow"))]
    files = ScoreFiles(sorted((drawn / "aesthetic").iterdir()), [shard_identity(it.about) for it in tables])
    for number in (9, 2, 15, 2, 0):
        assert set(files.of(number)) == {3 * number + k for k in range(3)}
    paths = sorted((drawn / "aesthetic").iterdir())
    files = ScoreFiles([*paths[:-1], paths[0]], [shard_identity(it.about) for it in tables])
    with pytest.raises(InputError, match="given twice"):
        for number in range(SHARDS_APART):
            files.of(number)
