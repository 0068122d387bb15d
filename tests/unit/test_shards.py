"""Shards: the same data for any number of them, and nothing lost when a job is killed."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import stripes_engine
from gen4det.core.errors import InputError
from gen4det.core.provenance import file_hash, write_json
from gen4det.data import manifests, shards
from gen4det.data.datasets import DatasetDescriptor, write_dataset
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.label_sets import as_dictionaries
from gen4det.engines.base import Generated, Instance, Labels
from gen4det.engines.shard_writer import IMAGE_DROPPED, ShardInProgress, label_records
from patience import patience

SETTINGS = {"engine": {"method": "stripes"}, "foundation": {}, "run_seed": 3}
NAMES = ("cup", "fish", "key", "mushroom", "boat")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A LVIS-style data set with five categories and one image."""
    folder = tmp_path_factory.mktemp("data")
    with ShardWriter(folder / "train.zip") as writer:
        writer.add("1.png", encode_image(np.zeros((8, 8, 3), np.uint8), "png"))
    categories = [
        {"id": number, "name": name, "def": name, "frequency": "rcf"[number % 3]}
        for number, name in enumerate(NAMES, start=1)
    ]
    image = {"id": 1, "file_name": "1.png", "height": 8, "width": 8}
    write_json(folder / "train.json", {"images": [image], "annotations": [], "categories": categories})
    split = {"annotations": "train.json", "images": "train.zip"}
    descriptor = {"name": "toy", "format": "lvis", "train": split, "val": split}
    write_dataset(folder / "dataset.json", DatasetDescriptor.model_validate(descriptor))
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def manifest(dataset, tmp_path_factory) -> Path:
    """A manifest, and beside it the model that the draw step reads."""
    path = tmp_path_factory.mktemp("plan") / "manifest.jsonl"
    stage("fit", "--dataset", dataset, "--output", path.with_name("palette"), settings=step("palette"))
    stage("plan", "--dataset", dataset, *reads_palette(path), "--output", path)
    return path


def reads_palette(manifest: Path) -> list[str]:
    return ["--reads", f"palette={manifest.with_name('palette')}"]


def step(name: str, **settings) -> dict:
    """Settings of one step of the test engine."""
    return {**SETTINGS, "step": name, "engine": {"method": "stripes", **settings}}


def command(name: str, *arguments, settings: dict | None = None) -> list[str]:
    settings = json.dumps(settings or SETTINGS)
    script = Path(stripes_engine.__file__)
    return [sys.executable, str(script), name, "--settings", settings, *map(str, arguments)]


def stage(name: str, *arguments, settings: dict | None = None, status: int = 0, **environment) -> str:
    """Run a stage with the test engine in a process of its own; its stderr."""
    done = subprocess.run(
        command(name, *arguments, settings=settings),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=patience(600),
    )
    assert done.returncode == status, done.stderr
    return done.stderr


def shard_arguments(dataset, manifest, folder, shard=0, of=1) -> list:
    output = folder / f"{shard:05d}"
    return [
        "--dataset",
        dataset,
        "--manifest",
        manifest,
        "--shard",
        shard,
        "--shards",
        of,
        "--output",
        output,
        *reads_palette(manifest),
    ]


def generate(dataset, manifest, folder, shard=0, of=1, *more, **options) -> str:
    arguments = shard_arguments(dataset, manifest, folder, shard, of)
    return stage("generate", *arguments, "--device", "cpu", *more, **options)


def choose(dataset, folder: Path) -> tuple[str, dict[str, bytes]]:
    """Filter a run without filters: its annotations without the names of zips, and the images by name."""
    files, output = sorted(folder.glob("0????.arrow")), folder.parent / "set.json"
    stage("filter", "--dataset", dataset, "--shards", *files, "--output", output, settings={"filter": {}})
    store = ImageStore(folder)
    images = {name.split("/")[1]: store.read(name) for name in store.names() if ".work" not in name}
    offered, rejected = as_dictionaries(output)
    text = json.dumps([offered | {"info": None}, rejected | {"info": None}], sort_keys=True)
    for file in files:
        text = text.replace(file.with_suffix(".zip").name + "/", "")
    return text, images


# --- acceptance check 10: shards and resuming ---------------------------------------------------------


@pytest.fixture(scope="module")
def whole(dataset, manifest, tmp_path_factory) -> Path:
    """The run as one shard."""
    folder = tmp_path_factory.mktemp("whole") / "shards"
    generate(dataset, manifest, folder)
    return folder


def test_planning_twice_gives_the_same_manifest(dataset, manifest, tmp_path):
    stage("plan", "--dataset", dataset, *reads_palette(manifest), "--output", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == manifest.read_bytes()
    rows = manifests.read_manifest(manifest)
    assert len({row["seed"] for row in rows}) == len(rows) == 14


def test_three_shards_give_the_same_data_as_one(dataset, manifest, whole, tmp_path):
    folder = tmp_path / "shards"
    for shard in (2, 0, 1):
        generate(dataset, manifest, folder, shard, 3)
    assert choose(dataset, folder) == choose(dataset, whole)


def test_killed_and_resumed_gives_the_same_files(dataset, manifest, whole, tmp_path):
    folder, log = tmp_path / "shards", tmp_path / "log"
    environment = {"STRIPES_LOG": str(log)}
    generate(dataset, manifest, folder, status=-signal.SIGKILL, STRIPES_KILL_AT="3", **environment)
    assert [path.name for path in sorted((folder / "00000.work").glob("*.zip"))] == [
        "00000000.zip", "00000001.zip", "00000002.zip",
    ]  # fmt: skip
    assert not (folder / "00000.zip").exists() and not (folder / "00000.arrow").exists()
    generate(dataset, manifest, folder, **environment)
    assert log.read_text().split() == ["0", "1", "2", "3", "4", "5", "6"]  # none drawn twice
    for name in ("00000.zip", "00000.arrow"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not (folder / "00000.work").exists()
    record = json.loads((folder / "00000.record.json").read_text())
    assert record["unet_calls"] == 7 * 5  # of all attempts together


def test_kept_batches_make_a_deleted_shard_again_without_drawing(dataset, manifest, whole, tmp_path):
    folder, log = tmp_path / "shards", tmp_path / "log"
    arguments = [*shard_arguments(dataset, manifest, folder), "--device", "cpu", "--keep-batches"]
    for _ in range(2):
        stage("generate", *arguments, STRIPES_LOG=str(log))
        for name in ("00000.zip", "00000.arrow"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()
            (folder / name).unlink()
    assert log.read_text().split() == ["0", "1", "2", "3", "4", "5", "6"]


def test_sigterm_saves_the_batch_in_hand_and_exits_143(dataset, manifest, whole, tmp_path):
    folder = tmp_path / "shards"
    arguments = [*shard_arguments(dataset, manifest, folder), "--device", "cpu"]
    process = subprocess.Popen(
        command("generate", *arguments),
        env={**os.environ, "STRIPES_SLEEP": "0.5"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(folder / "00000.work" / "00000000.zip")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=patience(300))
    assert process.returncode == 143
    saved = sorted((folder / "00000.work").glob("*.zip"))
    assert 1 <= len(saved) < 7
    assert f"{7 - len(saved)} of 7 batches to go" in errors
    generate(dataset, manifest, folder)
    assert (folder / "00000.arrow").read_bytes() == (whole / "00000.arrow").read_bytes()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + patience(300)
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_used_up_budget_saves_and_exits_75_and_every_attempt_makes_progress(dataset, manifest, tmp_path):
    folder = tmp_path / "shards"
    saved = 0
    for _ in range(3):
        generate(dataset, manifest, folder, 0, 1, "--max-seconds", "0.001", status=75)
        now = len(list((folder / "00000.work").glob("*.zip")))
        assert now > saved
        saved = now
    generate(dataset, manifest, folder)
    assert len(shards.load_shard(folder / "00000.arrow")["images"]) == 14


def test_more_shards_than_batches_gives_empty_shards(dataset, manifest, tmp_path):
    generate(dataset, manifest, tmp_path, 8, 9)
    data = shards.load_shard(tmp_path / "00008.arrow")
    assert data["images"] == [] and data["info"]["shard"] == 8


# --- foreign work is refused ----------------------------------------------------------------------------


def one_line(errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in errors
    return lines[0]


def test_work_of_other_settings_is_refused_in_one_line(dataset, manifest, tmp_path):
    generate(dataset, manifest, tmp_path, status=-signal.SIGKILL, STRIPES_KILL_AT="1")
    before = {path.name: path.read_bytes() for path in (tmp_path / "00000.work").glob("*.zip")}
    other = {**SETTINGS, "run_seed": 4}
    line = one_line(generate(dataset, manifest, tmp_path, settings=other, status=2))
    assert "00000.work: begun with other settings; delete this folder" in line
    line = one_line(stage("generate", *shard_arguments(dataset, manifest, tmp_path, 0, 2), status=2))
    assert "begun with other shards" in line
    assert {path.name: path.read_bytes() for path in (tmp_path / "00000.work").glob("*.zip")} == before


def test_two_jobs_never_draw_one_shard(tmp_path):
    with ShardInProgress(tmp_path / "00000", {}, 0, 1):
        with (
            pytest.raises(InputError, match="another process"),
            ShardInProgress(tmp_path / "00000", {}, 0, 1),
        ):
            pass


def test_damaged_batch_is_drawn_again(dataset, manifest, whole, tmp_path):
    generate(dataset, manifest, tmp_path, status=-signal.SIGKILL, STRIPES_KILL_AT="2")
    batch = tmp_path / "00000.work" / "00000001.zip"
    batch.write_bytes(batch.read_bytes()[:-30])
    generate(dataset, manifest, tmp_path)
    assert (tmp_path / "00000.zip").read_bytes() == (whole / "00000.zip").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "3", "--shards", "3"], "--shard 3: expected a number from 0 to 2"),
        (["--manifest", "missing.jsonl"], "missing.jsonl: cannot be read"),
    ],
)
def test_bad_arguments_are_one_line(dataset, manifest, tmp_path, arguments, message):
    line = one_line(generate(dataset, manifest, tmp_path, 0, 1, *arguments, status=2))
    assert message in line
    assert not list(tmp_path.iterdir())


# --- manifests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"index": 0, "batch": 0}], "seed must be a whole number"),
        ([{"index": 1, "batch": 0, "seed": 1}], "rows are missing"),
        ([{"index": 0, "batch": 2, "seed": 1}, {"index": 1, "batch": 1, "seed": 1}], "batch 1 after batch 2"),
        ([{"index": 0, "batch": 0, "seed": -1}], "not in"),
    ],
)
def test_manifest_out_of_order_is_refused(rows, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        manifests.write_manifest(tmp_path / "manifest.jsonl", rows)
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=message):
        manifests.read_manifest(tmp_path / "manifest.jsonl")


def test_manifest_cut_short_is_refused(manifest, tmp_path):
    cut = tmp_path / "manifest.jsonl"
    cut.write_bytes(manifest.read_bytes()[:-20])
    with pytest.raises(InputError, match="line 14: not JSON, or cut short"):
        manifests.read_manifest(cut)


# --- finished shards ------------------------------------------------------------------------------------


def row(index: int = 0) -> dict:
    return {"index": index, "batch": 0, "seed": 1}


def small_shard(folder: Path, shard: int = 0, of: int = 1, run: dict | None = None, value: int = 0) -> Path:
    image = np.full((6, 8, 3), value, np.uint8)
    with ShardInProgress(folder / f"{shard:05d}", run or {"a": 1}, shard, of) as work:
        work.save(shard, [Generated(row(shard), image, [Instance(1, [0, 0, 2, 2])])])
        work.assemble([shard], [{"id": 1, "name": "cup"}])
        work.discard()
    return folder / f"{shard:05d}.arrow"


def test_cut_zip_is_refused(tmp_path):
    path = small_shard(tmp_path)
    archive = path.with_suffix(".zip")
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"00000\.zip: cut short, or not a zip"):
        shards.load_shard(path)


def test_missing_zip_is_refused(tmp_path):
    path = small_shard(tmp_path)
    path.with_suffix(".zip").unlink()
    with pytest.raises(InputError, match="no such file"):
        shards.load_shard(path)


def test_a_table_cut_short_is_refused(tmp_path):
    path = small_shard(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut short"):
        shards.load_shard(path)


def test_zip_with_other_pixels_under_the_same_names_is_refused(tmp_path):
    path = small_shard(tmp_path / "a")
    other = small_shard(tmp_path / "b", value=9)
    other.with_suffix(".zip").rename(path.with_suffix(".zip"))
    with pytest.raises(InputError, match=r"does not hold the images that 00000\.arrow describes"):
        shards.load_shard(path)


def test_shards_must_be_all_of_one_run(tmp_path):
    first, second = small_shard(tmp_path, 0, 3), small_shard(tmp_path, 1, 3)
    with pytest.raises(InputError, match="shard 2 of 3 is missing"):
        shards.load_run([second, first])
    with pytest.raises(InputError, match="given twice"):
        shards.load_run([small_shard(tmp_path / "one"), tmp_path / "one" / "00000.arrow"])
    foreign = small_shard(tmp_path, 2, 3, run={"a": 2})
    with pytest.raises(InputError, match="another run"):
        shards.load_run([first, second, foreign])
    loaded = shards.load_run([small_shard(tmp_path, 2, 3), second, first])
    assert [data["info"]["shard"] for data in loaded] == [0, 1, 2]


def test_zip_holds_all_images_and_labels_say_which_are_dropped(tmp_path):
    image = np.zeros((6, 8, 3), np.uint8)
    good, odd = Instance(2, [1.0, 1.0, 3.0, 2.0], score=0.25), {"reason": "too dark", "category_id": 3}
    with ShardInProgress(tmp_path / "00000", {}, 0, 1, "jpg") as work:
        work.save(0, [Generated(row(0), image, [good]), Generated(row(1), image, [good], [odd], keep=False)])
        work.assemble([0], [])
        work.discard()
    data = shards.load_shard(tmp_path / "00000.arrow")
    names = ["00000.zip/000000000000.jpg", "00000.zip/000000000001.jpg"]
    assert [record["file_name"] for record in data["images"]] == names == ImageStore(tmp_path).names()
    assert data["annotations"] == [
        {
            "id": 1000000000,
            "image_id": 1000000,
            "category_id": 2,
            "bbox": [1, 1, 3, 2],
            "area": 6.0,
            "score": 0.25,
        }
    ]
    assert [(label["image_id"], label["category_id"], label["reason"]) for label in data["rejected"]] == [
        (1000001, 3, "too dark"),
        (1000001, 2, IMAGE_DROPPED),
    ]
    with zipfile.ZipFile(tmp_path / "00000.zip") as archive:
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


def test_a_shard_has_the_categories_of_the_descriptor_without_reading_the_annotations(
    dataset, manifest, whole, tmp_path
):
    for name in ("train.json", "train.zip"):
        (tmp_path / name).write_bytes((dataset.parent / name).read_bytes())
    values = json.loads(dataset.read_text())
    categories = json.loads((tmp_path / "train.json").read_text())["categories"]
    write_json(tmp_path / "dataset.json", values | {"categories": categories})
    generate(tmp_path / "dataset.json", manifest, tmp_path / "same")
    assert (tmp_path / "same/00000.arrow").read_bytes() == (whole / "00000.arrow").read_bytes()
    (tmp_path / "train.json").write_text("gigabytes that nobody parses")
    generate(tmp_path / "dataset.json", manifest, tmp_path / "unread")
    assert shards.load_shard(tmp_path / "unread/00000.arrow")["categories"] == categories


def test_record_tells_counts_reasons_and_calls(dataset, manifest, whole):
    record = json.loads((whole / "00000.record.json").read_text())
    data = shards.load_shard(whole / "00000.arrow")
    assert record["images"] == 14
    assert record["labels"] == len(data["annotations"])
    assert record["labels"] + sum(record["labels_rejected"].values()) == 14 * 3
    assert record["unet_calls"] == 35
    assert record["settings"]["engine"]["images"] == 14
    assert record["device"] == "cpu" and record["seeds"] == {"run_seed": 3}
    assert set(record["inputs"]) == {str(dataset), str(manifest)}


def test_progress_bar_counts_kept_and_dropped_images(dataset, manifest, tmp_path):
    errors = generate(dataset, manifest, tmp_path)
    data = shards.load_shard(tmp_path / "00000.arrow")
    kept = len({annotation["image_id"] for annotation in data["annotations"]})
    assert "14/14" in errors and f"kept={kept}" in errors and f"dropped={14 - kept}" in errors


def test_an_image_may_have_any_number_of_labels():
    """Aerial images, cells, shelves: ids stay unique and those of the first thousand what they were."""
    labels = Labels([Instance(1, [0.0, 0.0, 2.0, 2.0]) for _ in range(2500)])
    ids = [[a["id"] for a in label_records(image, labels)[0]] for image in (1_000_000, 1_000_001)]
    assert ids[0][:1000] == list(range(1_000_000_000, 1_000_001_000))
    assert len({*ids[0], *ids[1]}) == 5000


def test_a_shard_holds_its_own_rows_alone(tmp_path):
    """Of ten million rows: one line is read at a time, and a batch of another shard is not kept."""
    path = tmp_path / "manifest.jsonl"
    manifests.write_manifest(path, [{"index": i, "batch": i // 2, "seed": i} for i in range(12)])
    rows = manifests.stream_manifest(path)
    first, _ = next(manifests.batches_of_shard(rows, 1, 3))
    assert first == 1 and next(rows)["index"] == 5  # the first row of the batch after it was looked at
    whole = dict(manifests.batches_of_shard(manifests.read_manifest(path), 1, 3))
    assert dict(manifests.batches_of_shard(manifests.stream_manifest(path), 1, 3)) == whole


def indexed_manifest(folder: Path) -> tuple[Path, list[dict]]:
    """A manifest of 40 rows in batches of three, some of whose numbers are left out."""
    rows = [{"index": i, "batch": i // 3 * 2, "seed": i, "prompt": f"a cup, \u2028 {i}"} for i in range(40)]
    manifests.write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl", rows


@pytest.mark.parametrize("shards_", [1, 3, 50])
def test_a_shard_finds_its_rows_by_the_index_without_reading_the_others(tmp_path, monkeypatch, shards_):
    path, rows = indexed_manifest(tmp_path)
    expected = [dict(manifests.batches_of_shard(rows, shard, shards_)) for shard in range(shards_)]
    digest = file_hash(path)

    def read_whole(*_):
        raise AssertionError("the whole manifest was read")

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "stream_manifest", read_whole)
        patch.setattr(manifests, "file_hash", read_whole)
        found = [manifests.read_batches(path, shard, shards_) for shard in range(shards_)]
    assert found == [(batches, digest) for batches in expected]
    manifests.index_of(path).unlink()
    assert [manifests.read_batches(path, shard, shards_) for shard in range(shards_)] == found


@pytest.mark.parametrize("damage", ["edited", "longer", "cut index", "lost batch", "no index"])
def test_an_index_of_other_lines_is_not_used(tmp_path, damage):
    path, rows = indexed_manifest(tmp_path)
    index = manifests.index_of(path)
    if damage == "edited":  # of the same length
        path.write_bytes(path.read_bytes().replace(b'"seed":1}', b'"seed":9}'))
    elif damage == "longer":
        more = {"index": 40, "batch": 26, "seed": 1}
        path.write_text(path.read_text() + json.dumps(more) + "\n")
    elif damage in ("cut index", "lost batch"):
        index.write_bytes(index.read_bytes()[: -5 if damage == "cut index" else -32])
    else:
        index.unlink()
    batches, digest = manifests.read_batches(path, 0, 1)
    assert digest == file_hash(path)
    assert [row for members in batches.values() for row in members] == manifests.read_manifest(path)
    assert (manifests.read_manifest(path) == rows) == (damage not in ("edited", "longer"))
