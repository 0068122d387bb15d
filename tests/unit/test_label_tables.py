"""Labels as columns: the same records, the same kept labels and the same training as of dictionaries."""

import json
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask
from tiny_detector import CATEGORIES, tiny_dataset, write_images

from filtered import write_filtered, write_shard
from gen4det.core.errors import InputError
from gen4det.core.provenance import file_hash
from gen4det.data import label_tables
from gen4det.data.annotations import category_counts, counted_groups, index_annotations
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, load_dataset, write_dataset, write_split
from gen4det.data.images import ImageStore
from gen4det.data.label_columns import array_of, as_arrow, known, lists_of
from gen4det.data.label_sets import LabelSet, as_dictionaries, open_set
from gen4det.data.label_tables import LabelTable, LabelTableWriter, as_coco, write_table
from gen4det.data.shards import archive_digest, open_synthetic
from gen4det.detection.datasets import DetectionDataset, Source
from gen4det.detection.samplers import repeat_factors
from gen4det.filters.measurements import Measurements
from gen4det.filters.selection import Tally, select
from gen4det.filters.settings import FilterSettings
from gen4det.filters.verdicts import REASONS
from plain_filter import plain_verdicts

NAMES = [{"id": 2, "name": "cup"}, {"id": 3, "name": "fish"}, {"id": 9, "name": "key"}]


def random_labels(seed: int, images: int = 40, first: int = 100, rejected: bool = True) -> dict:
    """Labels of every form there is, some of each image."""
    rng = random.Random(seed)
    data = {"images": [], "annotations": [], "rejected": [], "categories": NAMES, "info": {"shard": 0}}
    for number in range(first, first + images):
        width, height = rng.randint(20, 60), rng.randint(20, 60)
        image = {"id": number, "file_name": f"00000.zip/{number}.png", "width": width, "height": height}
        if number % 3 == 0:
            image |= {"reference_image_id": 7, "number": number % 4, "prompt": "na\u00efve \u732b"}
        data["images"].append(image)
        for place in range(rng.randint(0, 6)):
            x, y = rng.randint(0, 9), rng.randint(0, 9)
            w, h = rng.randint(1, width - x), rng.randint(1, height - y)
            label = {"id": number * 1000 + place, "image_id": number, "category_id": rng.choice([2, 3, 9])}
            label |= {"bbox": [float(x), y + rng.random(), float(w), float(h) - 1 + rng.random()]}
            label["area"] = rng.uniform(1, w * h)
            mask = np.zeros((height, width), np.uint8, order="F")
            mask[y : y + h, x : x + w] = 1
            rle = coco_mask.encode(mask)
            forms = [
                {"size": rle["size"], "counts": rle["counts"].decode()},
                [[x, y, x + w, y, x + w, y + h], [1, 2.5, 3, 4, 5, 6.25]],
                {"size": [height, width], "counts": [3, 4, height * width - 7]},
                None,
            ]
            if (form := rng.choice(forms[:1] * 4 + forms)) is not None:
                label["segmentation"] = form
            if rng.random() < 0.5:
                label |= {
                    "score": rng.choice([0.25, 0.5, rng.random()]),
                    "labeller": rng.choice(["head", "net"]),
                }
            label |= rng.choice([{}, {}, {}, {"iscrowd": 1}, {"real": True}, {"iscrowd": 0, "ignore": 1}])
            label |= rng.choice([{}, {"attributes": {"torn": True}}, {"note": None}])
            data["annotations"].append(label)
        if rejected and rng.random() < 0.4:
            data["rejected"].append(
                {"image_id": number, "category_id": 3, "reason": rng.choice("ab"), "n": [1]}
            )
    return data


@pytest.fixture
def small_batches(monkeypatch):
    """Tables of many batches although they are small."""
    monkeypatch.setattr(label_tables, "LABELS_PER_BATCH", 17)


# --- records ------------------------------------------------------------------------------------------


def test_every_record_comes_back_as_it_was(small_batches, tmp_path):
    data = random_labels(1)
    write_table(tmp_path / "a.arrow", data)
    table = LabelTable.open(tmp_path / "a.arrow")
    assert len(table.batches) > 3 and table.as_coco() == as_coco(tmp_path / "a.arrow") == data
    assert LabelTable.of(data).as_coco() == data
    annotations = index_annotations(data)
    for row, image in enumerate(data["images"]):
        found, labels = table.record(row)
        assert found == image and [it for it in labels if "reason" not in it] == annotations[image["id"]]


def test_equal_records_give_equal_bytes_whatever_portions_they_come_in(small_batches, tmp_path):
    data = random_labels(2)
    write_table(tmp_path / "a.arrow", data)
    about = {"info": data["info"], "categories": data["categories"]}
    with LabelTableWriter(tmp_path / "b.arrow", about) as writer:
        for image in data["images"]:
            own = {
                key: [it for it in data[key] if it["image_id"] == image["id"]]
                for key in ("annotations", "rejected")
            }
            writer.add_all({"images": [image], **own})
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_a_table_that_is_not_one_or_was_cut_is_one_line(tmp_path):
    write_table(tmp_path / "a.arrow", random_labels(3))
    whole = (tmp_path / "a.arrow").read_bytes()
    for content in (b"", b"{}", whole[: len(whole) // 2], whole[:-3]):
        (tmp_path / "b.arrow").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.arrow: cut short, or no table of labels"):
            LabelTable.open(tmp_path / "b.arrow")
    with pytest.raises(InputError, match=r"gone\.arrow: no such file"):
        as_coco(tmp_path / "gone.arrow")


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), LabelTableWriter(tmp_path / "a.arrow", {}) as writer:
        writer.add({"id": 1, "width": 2, "height": 2}, [])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


# --- the data set -------------------------------------------------------------------------------------


def test_a_registered_split_has_a_table_and_is_neither_parsed_nor_hashed_again(tmp_path, monkeypatch):
    data = random_labels(4, rejected=False) | {"info": {}}
    del data["rejected"]
    (tmp_path / "images").mkdir()
    train = write_split(tmp_path, "train", data)
    for name, split in (("with", train), ("without", {"annotations": "train.json"})):
        descriptor = SplitDescriptor(**split, images="images")
        write_dataset(tmp_path / f"{name}.json", DatasetDescriptor(name="a", format="coco", train=descriptor))
    plain, mapped = load_dataset(tmp_path / "without.json"), load_dataset(tmp_path / "with.json")
    expected = plain.train.hash
    assert plain.frequency_groups == counted_groups(data)
    monkeypatch.setattr("gen4det.data.datasets.load_annotations", None)
    monkeypatch.setattr("gen4det.data.datasets.file_hash", None)
    assert mapped.train.hash == expected and mapped.train.labels().tables[0].as_coco() == data
    assert mapped.train.labels().counted_groups() == counted_groups(data)
    (tmp_path / "train.json").write_text("edited")
    with pytest.raises(InputError, match=r"train\.json: changed since .*with\.json was made"):
        load_dataset(tmp_path / "with.json")


# --- the filter ---------------------------------------------------------------------------------------

FILTERS = [
    {},
    {"min_score": {"head": 0.3, "net": 0.6, "None": 0.9}},
    {"min_score": 0.25, "score_must_exceed": True, "max_overlap": 0.3},
    {"max_overlap": 0.1, "max_overlap_among": "all"},
    {"min_box_side": 4, "max_aspect_ratio": 2.5, "max_instances": 2},
    {"min_area_fraction": 0.02, "max_area_fraction": 0.3, "max_images": 9},
    {"generations_per_reference": 2, "aesthetic": {"enabled": True, "threshold": 5}},
    {"agreement": {"enabled": True}, "max_instances": 3, "max_images": 5},
]


@pytest.mark.parametrize("values", FILTERS)
def test_columns_keep_what_dictionaries_keep(small_batches, tmp_path, values):
    settings = FilterSettings.model_validate(values)
    shards = [random_labels(10 + shard, 25, 100 + 25 * shard) for shard in range(3)]
    everything = {
        key: [it for data in shards for it in data[key]] for key in ("images", "annotations", "rejected")
    }
    rng = np.random.default_rng(0)
    scores = {image["id"]: float(rng.uniform(3, 7)) for image in everything["images"]}
    found = {
        str(image["id"]): [
            [a["category_id"], float(rng.uniform(0, 0.3)), *(v + float(rng.normal()) for v in a["bbox"])]
            for a in everything["annotations"]
            if a["image_id"] == image["id"] and rng.random() < 0.8
        ]
        for image in everything["images"]
    }
    expected = plain_verdicts(everything, settings, scores, 5.0, found)
    tables = []
    for number, data in enumerate(shards):
        write_table(tmp_path / f"{number}.arrow", data | {"info": {"shard": number}})
        tables.append(LabelTable.open(tmp_path / f"{number}.arrow"))
    chosen = select(tables, NAMES, settings, lambda shard: Measurements(scores, 5.0, found))
    verdicts = [int(code) for of_shard in chosen.verdicts for batch in of_shard for code in batch]
    labels = [label for table in tables for row in range(len(table)) for label in table.record(row)[1]]
    reasons = {
        label["id"]: REASONS[code - 1]
        for label, code in zip(labels, verdicts, strict=True)
        if "reason" not in label and code
    }
    assert reasons == expected
    if values:
        assert expected and len(expected) < len(everything["annotations"])
    kept = [a for a in everything["annotations"] if a["id"] not in expected]
    counts = category_counts({"annotations": kept, "categories": NAMES})
    tally: Tally = chosen.tally
    assert {c: (tally.holders[c], tally.instances[c]) for c in counts} == counts
    assert tally.labelled == len({a["image_id"] for a in kept})
    assert tally.reasons.total() == len(expected) + len(everything["rejected"])


def in_order(label: dict) -> str:
    return json.dumps(label, sort_keys=True)


def drawn(seed: int, **more) -> dict:
    data = random_labels(seed, **more)
    for image in data["images"]:
        image["width"] = image["height"] = 60
    for label in data["annotations"]:
        label.pop("segmentation", None)
    return data


def test_a_set_is_verdicts_over_the_tables_of_its_shards(small_batches, tmp_path):
    data = drawn(5)
    shard = write_shard(tmp_path / "shards", data)
    path = write_filtered([shard], tmp_path / "set.json", FilterSettings(min_box_side=5))
    offered, other = as_dictionaries(path)
    assert path.stat().st_size < 5_000 and (tmp_path / "verdicts.arrow").is_file()
    expected = plain_verdicts(data, FilterSettings(min_box_side=5), {}, 0, {})
    kept = [{"iscrowd": 0} | a for a in data["annotations"] if a["id"] not in expected]
    assert offered["annotations"] == kept
    assert [image["id"] for image in offered["images"]] == sorted({a["image_id"] for a in kept})
    lost = [a | {"reason": expected[a["id"]]} for a in data["annotations"] if a["id"] in expected]
    assert sorted(map(in_order, other["rejected"])) == sorted(map(in_order, lost + data["rejected"]))
    assert json.loads(path.read_text())["tables"][0]["sha256"] == file_hash(shard)


def test_a_set_is_refused_on_other_tables_and_on_verdicts_of_others(tmp_path):
    shard = write_shard(tmp_path / "shards", drawn(6))
    path = write_filtered([shard], tmp_path / "set.json")
    verdicts = tmp_path / "verdicts.arrow"
    verdicts.write_bytes(verdicts.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"verdicts\.arrow: cut short"):
        open_set(path)
    verdicts.unlink()
    with pytest.raises(InputError, match=r"verdicts\.arrow: no such file; it belongs to .*set\.json"):
        open_set(path)
    write_shard(tmp_path / "shards", drawn(7))
    with pytest.raises(
        InputError, match=r"00000\.arrow: other labels than .*set\.json was chosen from; filter again"
    ):
        open_set(path)


def test_the_filter_holds_one_batch_of_labels_at_a_time(tmp_path, monkeypatch):
    """More labels take no more memory than a byte each and the ids of their images."""
    monkeypatch.setattr(label_tables, "LABELS_PER_BATCH", 500)
    monster = drawn(8, images=100)
    peaks = []
    for times in (4, 40):
        path = tmp_path / f"{times}.arrow"
        with LabelTableWriter(path, {"info": {"shard": 0}, "categories": NAMES}) as writer:
            for again in range(times):
                images = [image | {"id": image["id"] + 1000 * again} for image in monster["images"]]
                moved = {
                    key: [it | {"image_id": it["image_id"] + 1000 * again} for it in monster[key]]
                    for key in ("annotations", "rejected")
                }
                writer.add_all({"images": images, **moved})
        table = LabelTable.open(path)
        tracemalloc.start()
        select([table], NAMES, FilterSettings(min_box_side=3))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    more = 36 * len(monster["annotations"] + monster["rejected"])
    assert peaks[1] - peaks[0] < 20 * more  # bytes; a dictionary of a label takes a thousand


def test_columns_with_gaps_are_those_of_pyarrow_itself():
    """The reference is Arrow's own conversion, of slices that begin inside a byte of the bitmap, too."""
    rng = random.Random(3)
    for kind, draw in (
        (pa.int64(), lambda: rng.randrange(9)),
        (pa.float64(), rng.random),
        (pa.int8(), lambda: 1),
    ):
        values = [None if rng.random() < 0.3 else draw() for _ in range(50)]
        for start, size in ((0, 50), (3, 20), (13, 0)):
            column = pa.array(values, kind).slice(start, size)
            expected = column.fill_null(7).to_numpy()
            assert (
                np.array_equal(array_of(column, 7), expected) and array_of(column, 7).dtype == expected.dtype
            )
            assert known(column).tolist() == [it is not None for it in values[start : start + size]]
            assert as_arrow(array_of(column, 7)).equals(column.fill_null(7))
    sizes = pa.array([[1, 2], None, [3, 4], None, [5, 6]], pa.list_(pa.int32(), 2))
    assert lists_of(sizes.slice(1), 2, 0).tolist() == [[0, 0], [3, 4], [0, 0], [5, 6]]


# --- the training -------------------------------------------------------------------------------------


def plain_items(data: dict, categories: list[dict], masks: bool) -> list[tuple[dict, list[dict]]]:
    """Images with objects to learn from, by mmdet's rules, of a dictionary; nothing of columns."""
    classes = {c["id"]: k for k, c in enumerate(sorted(categories, key=lambda it: it["id"]))}
    found = []
    for image in data["images"]:
        objects = []
        for a in data["annotations"]:
            if a["image_id"] != image["id"]:
                continue
            x, y, w, h = a["bbox"]
            inside = min(x + w, image["width"]) > max(x, 0) and min(y + h, image["height"]) > max(y, 0)
            if a.get("ignore") or not inside or w < 1 or h < 1:
                continue
            item = {"bbox": [x, y, x + w, y + h], "bbox_label": classes[a["category_id"]]}
            item["ignore_flag"] = int(bool(a.get("iscrowd")))
            objects.append(item | ({"mask": a["segmentation"]} if masks else {}))
        if objects:
            found.append((image, objects))
    return found


def check(sources: list[Source], dictionaries: list[dict], categories: list[dict], *, masks: bool) -> None:
    data = DetectionDataset(sources, categories, [], masks=masks)
    expected = [(k, *it) for k, d in enumerate(dictionaries) for it in plain_items(d, categories, masks)]
    assert data.origin.tolist() == [origin for origin, _, _ in expected] and len(data) == len(expected)
    for index, (_, image, objects) in enumerate(expected):
        record = data.record(index)
        assert record["img_id"] == image["id"] and record["instances"] == objects
    contents = [sorted({it["bbox_label"] for it in o if not it["ignore_flag"]}) for _, _, o in expected]
    assert list(data.contents) == contents
    images = {c: sum(c in labels for labels in contents) for labels in contents for c in labels}
    factor = {c: max(1.0, float(np.sqrt(0.3 * len(contents) / count))) for c, count in images.items()}
    weights = [max((factor[c] for c in labels), default=1.0) for labels in contents]
    assert repeat_factors(data.contents, 0.3).tolist() == weights  # to the digit


@pytest.mark.parametrize("masks", [False, True])
def test_the_miniature_trains_on_the_same_records_in_the_same_order(small_batches, tmp_path, masks):
    (tmp_path / "real").mkdir()
    real = tiny_dataset(tmp_path / "real")
    plain = real.train.load()
    write_table(tmp_path / "train.arrow", plain)
    mapped = LabelSet(real.train.annotations_path, [LabelTable.open(tmp_path / "train.arrow")], plain)
    shards = []
    for number in range(2):
        folder = tmp_path / "drawn/shards"
        data = write_images(folder / f"{number:05d}.zip", [[3], [7, 3], [20]], number, f"{number:05d}.zip/")
        for kind in ("images", "annotations"):  # ids of the shards take turns
            for it in data[kind]:
                it["id"] = 2 * it["id"] + number
                if kind == "annotations":
                    it["image_id"] = 2 * it["image_id"] + number
        archive = folder / f"{number:05d}.zip"
        info = {"shard": number, "shards": 2, "run": "r", "archive": archive.name}
        write_table(
            archive.with_suffix(".arrow"), data | {"info": info | {"digest": archive_digest(archive)}}
        )
        shards.append(archive.with_suffix(".arrow"))
    path = write_filtered(shards, tmp_path / "drawn/set.json", FilterSettings(min_area_fraction=0.01))
    labels, images = open_synthetic(path)
    sources = [
        Source("tiny", real.train.annotations_path, mapped, real.train.images),
        Source("drawn", path, labels, images, synthetic=True),
    ]
    offered, _ = as_dictionaries(path)
    assert [image["id"] for image in offered["images"]] == sorted(image["id"] for image in offered["images"])
    check(sources, [plain, offered], CATEGORIES, masks=masks)


@pytest.mark.parametrize("name", ["instances_train2017", "lvis_v1_train"])
def test_coco_mini_trains_on_the_same_records(tmp_path, shared_dir, name):
    path = shared_dir / "data/coco-mini/annotations" / f"{name}.json"
    data = json.loads(path.read_bytes())
    write_table(tmp_path / "a.arrow", data)
    table = LabelTable.open(tmp_path / "a.arrow")
    by_id = {a["id"]: a for a in table.as_coco()["annotations"]}
    assert table.as_coco()["images"] == data["images"] and by_id == {a["id"]: a for a in data["annotations"]}
    source = Source("coco", path, LabelSet(path, [table], table.about), ImageStore(tmp_path))
    check([source], [data], data["categories"], masks=True)


WITHOUT = """
import sys
path, *sys.argv = sys.argv[1:]
from gen4det.stages import filter
filter.main()
from gen4det.data.label_sets import open_set
from gen4det.detection.label_index import index_images
labels = open_set(path)
index_images(labels, {category["id"]: k for k, category in enumerate(labels.categories)})
labels.record(0)
print([m for m in ("torch", "pandas", "mmdet") if m in sys.modules])
"""


def test_neither_a_filter_nor_a_look_at_its_set_imports_what_draws_trains_or_tabulates(tmp_path):
    """Each of them would be hundreds of megabytes, or half a second, in every process."""
    shard, settings = write_shard(tmp_path / "shards", drawn(9)), FilterSettings(min_box_side=5)
    path = write_filtered([shard], tmp_path / "set.json", settings)
    arguments = ["--settings", json.dumps({"settings": {"filter": {"min_box_side": 5}}}), "--shards", shard]
    arguments += ["--dataset", tmp_path / "names/dataset.json", "--output", path]
    command = [sys.executable, "-c", WITHOUT, path, "filter", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
