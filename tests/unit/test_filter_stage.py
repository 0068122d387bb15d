"""From shards to a synthetic set: filters and reasons, LVIS and COCO export, merging."""

import csv
import json
import re
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from filtered import split_labels, write_filtered, write_shard
from gen4det.core.errors import InputError, RefusedInput
from gen4det.core.provenance import write_json
from gen4det.data.annotations import category_counts
from gen4det.data.datasets import DatasetDescriptor, load_dataset, write_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.label_columns import Columns
from gen4det.data.label_sets import OFFERED, as_dictionaries
from gen4det.data.label_tables import LabelTable, as_coco, write_table
from gen4det.data.masks import area_of_rle, box_of_rle, mask_to_rle, polygons_to_rle, rle_to_mask
from gen4det.data.shards import load_synthetic, open_synthetic
from gen4det.engines.base import Generated, Instance
from gen4det.engines.shard_writer import IMAGE_DROPPED, ShardInProgress
from gen4det.evaluation.filter_page import filter_page, read_fractions
from gen4det.evaluation.gallery import gallery_page, read_synthetic
from gen4det.evaluation.measures.synthetic_set import synthetic_set_measures
from gen4det.evaluation.study_settings import GallerySettings
from gen4det.filters.selection import Tally, kept_fractions
from gen4det.filters.settings import FilterSettings
from gen4det.filters.verdicts import CODES
from gen4det.stages import filter as stage

SIZE = (48, 64)
NAMES = {1: "cup", 2: "fish", 3: "key", 7: "mushroom"}
FREQUENCY = {1: "f", 2: "c", 3: "r", 7: "r"}


def write_toy_dataset(folder: Path, form: str) -> Path:
    """Two training images with objects of all categories but the mushroom."""
    categories = [{"id": c, "name": name} for c, name in NAMES.items()]
    images = [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in (5, 9)]
    annotations = [
        {"id": 40 + n, "image_id": image, "category_id": c, "bbox": [0.0, 0.0, 4.0, 4.0], "area": 16.0}
        for n, (image, c) in enumerate([(5, 1), (5, 2), (9, 1), (9, 1), (9, 3)])
    ]
    for annotation in annotations:
        annotation["segmentation"] = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]]
    data = {"images": images, "annotations": annotations, "categories": categories}
    if form == "lvis":
        counts = category_counts(data)
        for category in categories:
            counted = dict(zip(("image_count", "instance_count"), counts[category["id"]], strict=True))
            category.update({"frequency": FREQUENCY[category["id"]], "def": "a thing", **counted})
        for image in images:
            image.update(neg_category_ids=[], not_exhaustive_category_ids=[], coco_url=image["file_name"])
    write_json(folder / "train.json", data)
    with ShardWriter(folder / "train.zip") as writer:
        for image in images:
            writer.add(image["file_name"], encode_image(np.zeros((8, 8, 3), np.uint8), "png"))
    split = {"annotations": "train.json", "images": "train.zip"}
    descriptor = {"name": "toy", "format": form, "train": split, "val": split}
    write_dataset(folder / "dataset.json", DatasetDescriptor.model_validate(descriptor))
    return folder / "dataset.json"


def instance(category: int, x: int, y: int, w: int, h: int, hole: bool = False, score=None) -> Instance:
    mask = np.zeros(SIZE, bool)
    mask[y : y + h, x : x + w] = True
    mask[y + h // 2, x + w // 2] = not hole
    rle = mask_to_rle(mask)
    return Instance(category, box_of_rle(rle), rle, score)


def write_shards(folder: Path, form: str = "lvis") -> list[Path]:
    """Five images in two shards: 0 two objects, 1 one and a rejected one, 2 dropped by the engine,
    3 nothing but a rejected object, 4 three objects, one of them tiny, one with a hole."""
    image = np.zeros((*SIZE, 3), np.uint8)
    small = {"reason": "component too small", "category_id": 7, "bbox": [0, 0, 30, 24]}
    rows = [{"index": index, "batch": index // 3, "seed": index} for index in range(5)]
    drawn = [
        Generated(rows[0], image, [instance(1, 2, 3, 20, 10), instance(3, 30, 20, 12, 14)]),
        Generated(rows[1], image, [instance(2, 5, 5, 30, 30)], [small]),
        Generated(rows[2], image, [instance(2, 1, 1, 9, 9)], [small], keep=False),
        Generated(rows[3], image, [], [small], keep=False),
        Generated(
            rows[4],
            image,
            [
                instance(3, 0, 0, 3, 3, score=0.9),
                instance(3, 10, 10, 20, 20, hole=True, score=0.4),
                instance(1, 40, 2, 8, 40),
            ],
        ),
    ]
    categories = [{"id": c, "name": name} for c, name in NAMES.items()]
    paths = []
    for shard, members in enumerate((drawn[:3], drawn[3:])):
        with ShardInProgress(folder / f"{shard:05d}", {"run": 1}, shard, 2) as work:
            work.save(shard, members)
            work.assemble([shard], categories)
            work.discard()
        paths.append(folder / f"{shard:05d}.arrow")
    return paths


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the stage's command line in this process; (annotations, rejected, rows of the table)."""

    def call(form: str = "lvis", **settings) -> tuple[dict, dict, list[dict]]:
        dataset = write_toy_dataset(tmp_path / f"data-{form}", form)
        paths = write_shards(tmp_path / "set" / "shards")
        output = tmp_path / "set" / "set.json"
        arguments = [
            "--settings", json.dumps({"settings": {"filter": settings}, "code": "x"}), "--dataset", dataset,
            "--shards", *reversed(paths), "--output", output,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["filter", *map(str, arguments)])
        stage.main()
        table = list(csv.DictReader((tmp_path / "set" / "filter.csv").open()))
        return *as_dictionaries(output), table

    return call


# --- what is kept ---------------------------------------------------------------------------------------


def test_kept_and_rejected_make_up_everything_that_was_generated(run, tmp_path):
    data, rejected, table = run(min_box_side=4)
    assert len(data["annotations"]) + len(rejected["rejected"]) == 10
    assert rejected["reasons"] == {"component too small": 3, IMAGE_DROPPED: 1, "min_box_side": 1}
    assert [image["id"] for image in data["images"]] == [1000000, 1000001, 1000004]
    for row in table:
        assert int(row["generated"]) == int(row["kept"]) + int(row["rejected"])
        assert int(row["rejected"]) == sum(int(row[reason]) for reason in rejected["reasons"])
    record = json.loads((tmp_path / "set" / "set.json.record.json").read_text())
    assert record["labels_generated"] == 10 and record["labels_kept"] == 5
    assert record["kept_fraction"]["all"] == 0.5 and record["images_kept"] == 3


def test_table_has_groups_and_every_category(run):
    _, _, table = run()
    rows = {row["name"]: row for row in table}
    assert [row["name"] for row in table] == ["all", "rare", "common", "frequent", *NAMES.values()]
    assert (rows["key"]["kept"], rows["key"]["kept_fraction"]) == ("3", "1.0")
    assert (rows["mushroom"]["generated"], rows["mushroom"]["kept_fraction"]) == ("3", "0.0")
    assert (rows["rare"]["kept"], rows["rare"]["kept_fraction"]) == ("3", "0.5")
    assert rows["fish"]["frequency"] == rows["common"]["frequency"] == "c"


def test_table_counts_what_was_drawn_and_judged():
    drawn, real, crowd = (
        {"category_id": 3},
        {"category_id": 3, "real": True},
        {"category_id": 3, "iscrowd": 1},
    )
    kept = [drawn, real, crowd]
    rejected = [{**label, "reason": "aesthetic"} for label in (drawn, drawn, real, crowd)]
    rejected.append({**drawn, "reason": "generations_per_reference"})
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 50}
    labels = [{**label(9, 9), **it, "id": number} for number, it in enumerate(kept + rejected)]
    columns, tally = Columns(LabelTable.of({"images": [image], "annotations": labels}).batches[0]), Tally()
    codes = [CODES[it["reason"]] if "reason" in it else OFFERED for it in labels]
    tally.add(columns, np.array(codes, dtype=np.uint8))
    rows = kept_fractions(tally, [{"id": 3, "name": "key"}], {3: "r"})
    assert [row["name"] for row in rows] == ["all", "rare", "common", "frequent", "key"]
    assert (rows[0]["generated"], rows[0]["kept"], rows[0]["aesthetic"]) == (3, 1, 2)
    assert rows[0]["kept_fraction"] == 0.3333 and "generations_per_reference" not in rows[0]


def test_all_filters_are_off_by_default(run):
    data, rejected, _ = run()
    assert len(data["annotations"]) == 6
    assert set(rejected["reasons"]) == {"component too small", IMAGE_DROPPED}


def test_rejected_labels_can_be_found_in_their_images(run, tmp_path):
    _, rejected, _ = run(min_box_side=4)
    names = {image["id"]: image["file_name"] for image in rejected["images"]}
    assert all(label["image_id"] in names for label in rejected["rejected"])
    assert names[1000003] == "00001.zip/000000000003.png"
    assert rejected["info"]["images"] == "shards"


def test_nothing_kept_is_an_empty_set_that_says_why(run, tmp_path):
    data, rejected, _ = run(min_box_side=60)
    assert data["images"] == data["annotations"] == []
    assert re.fullmatch(r"all 10 labels of set were rejected: .*6 x min_box_side.*", data["info"]["refused"])
    assert len(rejected["rejected"]) == 10
    with pytest.raises(RefusedInput, match=r"set/set\.json: there is none: all 10 labels of set"):
        load_synthetic(tmp_path / "set" / "set.json")


def test_pages_and_measures_are_made_of_an_empty_set(run, tmp_path):
    run(min_box_side=60)
    generated = read_synthetic(tmp_path / "set" / "set.json")
    gallery_page(GallerySettings(title="A", scale="test"), [generated]).canvas.draw()
    filter_page(generated, read_fractions(tmp_path / "set" / "filter.csv")).canvas.draw()
    record = json.loads((tmp_path / "set" / "set.json.record.json").read_text())
    measured = synthetic_set_measures(*as_dictionaries(tmp_path / "set" / "set.json"), record, [])
    assert (measured["images"], measured["labels"], measured["rejected"]) == (0, 0, 100)


def test_unknown_filter_is_refused(run):
    with pytest.raises(InputError, match="min_side"):
        run(min_side=3)


IMAGE = {"id": 1, "height": 40, "width": 50}


def label(w: float, h: float, area: float | None = None, **more) -> dict:
    return {"id": 1, "image_id": 1, "bbox": [0, 0, w, h], "area": w * h if area is None else area, **more}


@pytest.mark.parametrize(
    ("settings", "annotation", "reason"),
    [
        ({"min_score": 0.5}, label(9, 9, score=0.4), "min_score"),
        ({"min_score": 0.5}, label(9, 9, score=0.5), None),
        ({"min_score": 0.5}, label(9, 9), None),
        ({"min_box_side": 4}, label(3.9, 30), "min_box_side"),
        ({"min_box_side": 4}, label(4, 30), None),
        ({"max_aspect_ratio": 3}, label(5, 16), "max_aspect_ratio"),
        ({"max_aspect_ratio": 3}, label(15, 5), None),
        ({"min_area_fraction": 0.01}, label(20, 20, area=19), "min_area_fraction"),
        ({"max_area_fraction": 0.5}, label(40, 30), "max_area_fraction"),
        ({"max_area_fraction": 0.5}, label(40, 25), None),
        ({"min_score": 0.5, "min_box_side": 4}, label(1, 1, score=0.1), "min_score"),
    ],
)
def test_single_filters_their_limits_and_their_order(settings, annotation, reason):
    kept, rejected = split_labels([IMAGE], [annotation], FilterSettings(**settings))
    assert [it["reason"] for it in rejected] == ([] if reason is None else [reason])
    assert kept == ([annotation] if reason is None else [])


def test_images_with_too_many_labels_lose_all_of_them_after_the_other_filters():
    labels = [{**label(w, 10), "id": w} for w in (2, 10, 11)]
    settings = FilterSettings(min_box_side=4, max_instances=2)
    kept, rejected = split_labels([IMAGE], labels, settings)
    assert [a["id"] for a in kept] == [10, 11]
    assert [(a["id"], a["reason"]) for a in rejected] == [(2, "min_box_side")]
    kept, rejected = split_labels([IMAGE], labels, FilterSettings(max_instances=2))
    assert kept == [] and {a["reason"] for a in rejected} == {"max_instances"}


def test_the_same_amount_of_every_engine_is_offered_and_a_smaller_one_is_part_of_a_larger():
    images = [{"id": number, "height": 48, "width": 64} for number in range(1, 41)]
    labels = [
        {**label(10, 10), "id": 2 * image["id"] + k, "image_id": image["id"], "category_id": 1}
        for image in images
        for k in (0, 1)
    ]
    refused = {a["id"] for a in labels if a["image_id"] % 4 == 0}
    for annotation in labels:
        annotation["score"] = 0.1 if annotation["id"] in refused else 0.9

    def offered(number: int | None) -> set[int]:
        kept, rejected = split_labels(images, labels, FilterSettings(min_score=0.5, max_images=number))
        assert len(kept) + len(rejected) == len(labels)
        assert {a["reason"] for a in rejected} <= {"min_score", "max_images"}
        assert {a["id"] for a in rejected if a["reason"] == "min_score"} == refused
        return {a["image_id"] for a in kept}

    few, more, every = offered(6), offered(24), offered(None)
    assert (len(few), len(more), len(every)) == (6, 24, 30) and few < more < every == offered(99)
    assert not few <= set(range(1, 12)), "not simply the first"


# --- acceptance check 10: the exported files ------------------------------------------------------------


@pytest.fixture
def lvis_api(monkeypatch):
    """The official API; it still uses np.float, which numpy has dropped."""
    import matplotlib  # noqa: F401  both are confused by a np.float that appears before their import
    import numpy.ma  # noqa: F401

    monkeypatch.setattr(np, "float", float, raising=False)
    from lvis import LVIS

    return LVIS


@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_export_loads_in_the_official_lvis_api(run, lvis_api, tmp_path, segmentation):
    data, _, _ = run(segmentation=segmentation)
    write_json(tmp_path / "annotations.json", data)
    api = lvis_api(str(tmp_path / "annotations.json"))
    assert sorted(api.get_img_ids()) == [1000000, 1000001, 1000004]
    assert sorted(api.get_cat_ids()) == [1, 2, 3]
    for annotation in api.load_anns(api.get_ann_ids(img_ids=[1000004])):
        assert api.ann_to_mask(annotation).sum() == annotation["area"]


@pytest.mark.parametrize("form", ["lvis", "coco"])
def test_export_loads_in_pycocotools(run, tmp_path, form):
    from pycocotools.coco import COCO

    write_json(tmp_path / "annotations.json", run(form)[0])
    api = COCO(str(tmp_path / "annotations.json"))
    assert len(api.getAnnIds(iscrowd=False if form == "coco" else None)) == 6
    for annotation in api.loadAnns(api.getAnnIds()):
        assert api.annToMask(annotation).shape == SIZE


def test_boxes_and_areas_are_those_of_the_masks(run):
    data, _, _ = run()
    for annotation in data["annotations"]:
        rle = annotation["segmentation"]
        assert rle["size"] == list(SIZE) and isinstance(rle["counts"], str)
        assert annotation["bbox"] == box_of_rle(rle)
        assert annotation["area"] == area_of_rle(rle)


def test_polygons_pass_the_rule_of_detectron2s_lvis_loader(run):
    exact, _, _ = run()
    data, _, _ = run(segmentation="polygon")
    for annotation, original in zip(data["annotations"], exact["annotations"], strict=True):
        polygons = annotation["segmentation"]
        assert isinstance(polygons, list) and polygons
        assert all(isinstance(part, list) and len(part) % 2 == 0 and len(part) >= 6 for part in polygons)
        filled = rle_to_mask(polygons_to_rle(polygons, *SIZE))
        assert annotation["area"] == filled.sum()
        assert annotation["bbox"] == original["bbox"]
        hole = filled & ~rle_to_mask(original["segmentation"])
        assert hole.sum() == (annotation.get("score") == 0.4)  # the one object with a hole


def test_lvis_fields(run):
    data, _, _ = run()
    incomplete = {image["id"]: image["not_exhaustive_category_ids"] for image in data["images"]}
    assert incomplete == {1000000: [], 1000001: [7], 1000004: []}
    assert all(image["neg_category_ids"] == [] for image in data["images"])
    assert all(image["coco_url"] == image["file_name"] for image in data["images"])
    found = {c["id"]: (c["image_count"], c["instance_count"], c["frequency"]) for c in data["categories"]}
    assert found == {1: (2, 2, "f"), 2: (1, 1, "c"), 3: (2, 3, "r")}  # no mushroom
    assert all(category["def"] == "a thing" for category in data["categories"])


def test_crowds_stay_crowds_in_coco(tmp_path):
    image = {**IMAGE, "file_name": "00000.zip/a.png"}
    labels = [label(9, 9), {**label(5, 5, iscrowd=1), "id": 2}]
    labels = [{**record, "category_id": 1} for record in labels]
    drawn = {"images": [image], "annotations": labels, "categories": [{"id": 1, "name": "cup"}]}
    data, _ = as_dictionaries(write_filtered([write_shard(tmp_path, drawn)], tmp_path / "set.json"))
    assert [annotation["iscrowd"] for annotation in data["annotations"]] == [0, 1]


def test_shards_of_another_folder_are_found_from_the_set(run, tmp_path):
    run()
    data, images = load_synthetic(tmp_path / "set" / "set.json")
    assert images.image(data["images"][0]["file_name"]).shape == (*SIZE, 3)
    moved = tmp_path / "elsewhere" / "annotations.json"
    write_json(moved, data | {"info": data["info"] | {"images": "../set/shards"}})
    data, images = load_synthetic(moved)
    assert images.exists(data["images"][-1]["file_name"])


def test_set_whose_shards_were_cut_or_drawn_anew_is_refused(run, tmp_path):
    run()
    annotations, folder = tmp_path / "set" / "set.json", tmp_path / "set" / "shards"
    whole = (folder / "00001.zip").read_bytes()
    (folder / "00001.zip").write_bytes(whole[:-5])
    with pytest.raises(InputError, match=r"00001\.zip: truncated"):
        open_synthetic(annotations)
    (folder / "00000.zip").rename(folder / "00001.zip")
    with pytest.raises(InputError, match=r"00000\.zip: no such zip of images"):
        open_synthetic(annotations)


def test_variant_that_shares_images_points_to_them(run, tmp_path, monkeypatch):
    run()
    output = tmp_path / "variant" / "set.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["filter", "--settings", "{}", "--dataset", str(tmp_path / "data-lvis" / "dataset.json"), "--shards"]
        + [str(tmp_path / "set" / "shards" / f"0000{shard}.arrow") for shard in (0, 1)]
        + ["--output", str(output)],
    )
    stage.main()
    data, images = load_synthetic(output)
    assert data["info"]["images"] == "../set/shards"
    assert all(images.exists(image["file_name"]) for image in data["images"])


def test_shards_of_another_split_are_refused_and_the_set_says_of_which_it_is(run, tmp_path):
    annotations, *_ = run()
    assert annotations["info"]["split"] is None  # nothing is claimed that the shards do not say
    dataset = load_dataset(write_toy_dataset(tmp_path / "data", "lvis"))
    arguments = Namespace(workers=1, aesthetic=[], detections=[], calibration=None)
    arguments.dataset = dataset.path
    arguments.output = tmp_path / "set" / "set.json"
    arguments.shards = write_shards(tmp_path / "set" / "shards")
    for split in (dataset.train.hash, "another"):
        for path in arguments.shards:
            data = as_coco(path)
            data["info"]["split"] = split
            write_table(path, data)
        if split == dataset.train.hash:
            stage.choose(arguments, FilterSettings(), dict.fromkeys(map(str, arguments.shards), ""))
            assert as_dictionaries(arguments.output)[0]["info"]["split"] == split
        else:
            with pytest.raises(
                InputError, match=r"00000\.arrow: not drawn from .*train\.json; draw it again$"
            ):
                stage.choose(arguments, FilterSettings(), {})


def test_shards_of_another_dataset_are_refused(run, tmp_path):
    original = dict(NAMES)
    NAMES[1] = "mug"
    try:
        paths = write_shards(tmp_path / "foreign")
    finally:
        NAMES.update(original)
    dataset = write_toy_dataset(tmp_path / "data", "lvis")
    arguments = Namespace(workers=1, aesthetic=[], detections=[], calibration=None)
    arguments.dataset, arguments.shards = dataset, paths
    arguments.output = tmp_path / "out.json"
    with pytest.raises(InputError, match="another data set: their category 1 is 'mug', here it is 'cup'"):
        stage.choose(arguments, FilterSettings(), {})
