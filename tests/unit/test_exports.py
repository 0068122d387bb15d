"""Exports: COCO, YOLO, VOC and imagefolder, read back by the formats' own loaders or by a second reader."""

import json
import shutil
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

import own_layouts
from filtered import write_filtered, write_shard
from gen4det.core.errors import InputError
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import load_dataset
from gen4det.data.defects import Defects
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.label_sets import LabelSet, as_dictionaries
from gen4det.data.layouts import folder as folder_module
from gen4det.data.layouts.base import Picture
from gen4det.data.layouts.card import CardFacts, ExportSettings, card, effect
from gen4det.data.layouts.folder import LAYOUTS, MARK, Part, check_target, export, finish_export, work_folder
from gen4det.data.layouts.yolo import joined
from gen4det.data.masks import area_of_rle, mask_to_rle, rle_to_mask, segmentation_to_rle
from gen4det.data.photographs import register_photographs
from gen4det.data.shards import open_synthetic
from gen4det.data.source_settings import PhotographsDataset
from gen4det.data.sources.folder import read_folder
from gen4det.filters.settings import FilterSettings

HEIGHT, WIDTH = 48, 64
CATEGORIES = [
    {"id": 3, "name": "cup", "def": "a mug"},
    {"id": 7, "name": "sea fish"},
    {"id": 9, "name": "owl"},
]


def region(*boxes, hole=None) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = True
    if hole:
        x, y, w, h = hole
        mask[y : y + h, x : x + w] = False
    return mask


MASKS = {
    "plain": region((8, 10, 20, 12)),
    "holed": region((4, 4, 30, 20), hole=(10, 8, 6, 6)),
    "parted": region((2, 2, 10, 10), (40, 30, 12, 8), (20, 20, 6, 6)),
}


def label(number: int, image: int, mask: np.ndarray, category: int = 7, **more) -> dict:
    ys, xs = np.nonzero(mask)
    box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": [float(v) for v in box],
        "area": float(mask.sum()), "iscrowd": 0, "segmentation": mask_to_rle(mask), **more,
    }  # fmt: skip


def part(origin: str, data: dict, images: ImageStore) -> Part:
    return Part(origin, LabelSet.of(data, "labels.json"), images)


def records(part: Part) -> dict:
    return part.labels.tables[0].as_coco()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Part:
    """Three images in a shard: plain and holed; of several parts; a crowd alone."""
    root = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    images = []
    with ShardWriter(root / "00000.zip") as shard:
        for k in range(3):
            name = f"{k:012d}.png"
            shard.add(name, encode_image(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), "png"))
            images.append({"id": k + 1, "file_name": f"00000.zip/{name}", "width": WIDTH, "height": HEIGHT})
    annotations = [
        label(10, 1, MASKS["plain"]),
        label(11, 1, MASKS["holed"], category=3),
        label(12, 2, MASKS["parted"]),
        label(13, 3, MASKS["plain"], iscrowd=1),
    ]
    data = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return part("engine", data, ImageStore(root))


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> dict[str, Part]:
    """Own photographs with masks, one of them lying on its side by its orientation."""
    root = tmp_path_factory.mktemp("real")
    folder = own_layouts.coco(root / "mine")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(96 * 72 * 3, dtype=np.uint8).reshape(96, 72, 3)).save(
        folder / "images/train/train3.jpg", exif=exif
    )
    path = folder / "annotations/instances_train.json"
    data = json.loads(path.read_text())
    data["images"][3]["file_name"] = "train3.jpg"
    path.write_text(json.dumps(data))
    settings = PhotographsDataset(source="photographs", folder=str(folder))
    register_photographs("mine", settings, root / "data" / "dataset.json")
    dataset = load_dataset(root / "data" / "dataset.json")
    return {
        split: Part("real", it.labels(), it.images)
        for split, it in (("train", dataset.train), ("val", dataset.val))
    }


def make(layout: str, target: Path, splits: dict, categories=CATEGORIES):
    done = export(splits, categories, layout, target, "fingerprint")
    finish_export(target, "fingerprint")
    return done


def merged(drawn, real) -> dict:
    """The generated set told as of the photographs' categories."""
    renamed = {3: 1, 7: 2}
    annotations = [a | {"category_id": renamed[a["category_id"]]} for a in records(drawn)["annotations"]]
    return {
        "train": [real["train"], part("engine", records(drawn) | {"annotations": annotations}, drawn.images)],
        "val": [real["val"]],
    }


OWN = [{"id": 1, "name": "cup"}, {"id": 2, "name": "fish"}]


# --- COCO, by pycocotools -------------------------------------------------------------------------


def test_coco_is_read_back_by_pycocotools_with_every_mask_exact(drawn, tmp_path):
    done = make("coco", tmp_path / "out", {"train": [drawn]})
    coco = COCO(str(tmp_path / "out/annotations/instances_train.json"))
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [
        (3, "cup"),
        (7, "sea fish"),
        (9, "owl"),
    ]
    found = coco.loadAnns(coco.getAnnIds(iscrowd=0))
    for annotation, name in zip(found, ("plain", "holed", "parted"), strict=True):
        assert np.array_equal(coco.annToMask(annotation).astype(bool), MASKS[name]), name
    assert [type(a["segmentation"]) for a in found] == [list, dict, list]
    (crowd,) = coco.loadAnns(coco.getAnnIds(iscrowd=1))
    assert np.array_equal(coco.annToMask(crowd).astype(bool), MASKS["plain"])
    for image in coco.dataset["images"]:
        with Image.open(tmp_path / "out/images/train" / image["file_name"]) as picture:
            assert picture.size == (WIDTH, HEIGHT)
    assert [count for what, count in done.losses.items() if "holes" in what] == [1]


def test_coco_merged_keeps_validation_apart_and_is_read_by_our_own_reader(drawn, real, tmp_path):
    done = make("coco", tmp_path / "out", merged(drawn, real), OWN)
    assert done.images == {("train", "real"): 12, ("train", "engine"): 3, ("val", "real"): 6}
    found = read_folder(tmp_path / "out", Defects("refuse"))
    assert len(found["train"].data["images"]) == 15 and len(found["val"].data["images"]) == 6
    assert {image["origin"] for image in found["train"].data["images"]} == {"real", "engine"}
    store = ImageStore(found["train"].images)
    turned = next(i for i in found["train"].data["images"] if "train3" in i["file_name"])
    with Image.open(found["train"].images / turned["file_name"]) as picture:  # without looking at its EXIF
        assert picture.size == store.size(turned["file_name"]) == (96, 72)
    assert done.losses["images stored upright with 8 bits: their files were turned or had 16"] == 1


# --- YOLO, by a second reader ---------------------------------------------------------------------


def yolo_rows(root: Path, split: str) -> dict[str, list[list[float]]]:
    """{image: rows} as YOLO's trainers find them: by the name, in `labels` in place of `images`."""
    found = {}
    for image in sorted((root / "images" / split).iterdir()):
        text = (root / "labels" / split / f"{image.stem}.txt").read_text()
        found[image.stem] = [[float(word) for word in line.split()] for line in text.splitlines()]
    return found


def filled(polygon: list[float]) -> np.ndarray:
    """Pixels whose centre is inside, even-odd, by the crossing rule: no library of ours or theirs."""
    points = np.reshape(polygon, (-1, 2)) * (WIDTH, HEIGHT)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:
            crossed = (y0 > ys) != (y1 > ys)
            inside ^= crossed & (xs < (x1 - x0) * (ys - y0) / (y1 - y0) + x0)
    return inside


def test_yolo_polygons_cover_the_masks_holes_filled_parts_joined(drawn, tmp_path):
    done = make("yolo", tmp_path / "out", {"train": [drawn]})
    description = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert description["names"] == {0: "cup", 1: "sea fish", 2: "owl"} and "path" not in description
    first, second, third = yolo_rows(tmp_path / "out", "train").values()
    assert [row[0] for row in first] == [1, 0]
    assert np.array_equal(filled(first[0][1:]), MASKS["plain"])
    assert np.array_equal(filled(first[1][1:]), region((4, 4, 30, 20)))
    assert np.array_equal(filled(second[0][1:]), MASKS["parted"])
    assert third == []  # a crowd alone: an empty file
    assert sorted(done.losses.values()) == [1, 1, 1]
    assert (tmp_path / "out/images/val").is_dir()


def test_yolo_writes_boxes_where_some_objects_have_no_mask_and_none_exceeds_the_image(drawn, tmp_path):
    labels = [dict(it) for it in records(drawn)["annotations"]]
    del labels[0]["segmentation"]
    labels[0]["bbox"] = [50.0, 40.0, 14.6, 8.4]  # rounding of annotation tools: 0.6 px beyond the edge
    boxed = part("engine", records(drawn) | {"annotations": labels}, drawn.images)
    done = make("yolo", tmp_path / "out", {"train": [boxed]})
    rows = list(yolo_rows(tmp_path / "out", "train").values())
    assert {len(row) for found in rows for row in found} == {5}
    assert np.allclose(rows[0][0][1:], [57 / 64, 44 / 48, 14 / 64, 8 / 48])
    assert done.losses["masks, left out: where some objects have none, all are boxes"] == 2


def test_yolo_is_read_back_by_our_own_reader(drawn, real, tmp_path):
    make("yolo", tmp_path / "out", merged(drawn, real), OWN)
    found = read_folder(tmp_path / "out", Defects("refuse"))
    assert [len(found[split].data["images"]) for split in ("train", "val")] == [15, 6]
    boxes = {tuple(np.round(a["bbox"], 3)) for a in found["val"].data["annotations"]}
    assert boxes == {tuple(map(float, a["bbox"])) for a in records(real["val"])["annotations"]}


def test_joined_parts_keep_their_area():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for _ in range(rng.integers(2, 6)):
            x, y = rng.integers(0, 50), rng.integers(0, 36)
            mask[y : y + rng.integers(2, 12), x : x + rng.integers(2, 12)] = 1
        contours, _ = cv2.findContours(
            mask.repeat(2, 0).repeat(2, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        parts = [((it.reshape(-1, 2) + 1) // 2).astype(float) for it in contours]
        outline = joined(parts)
        assert sum(map(len, parts)) + 2 * (len(parts) - 1) == len(outline)
        together = sum(filled((it / (WIDTH, HEIGHT)).reshape(-1)).sum() for it in parts)
        assert filled((outline / (WIDTH, HEIGHT)).reshape(-1)).sum() == together


# --- VOC ------------------------------------------------------------------------------------------


def test_voc_is_read_back_with_every_whole_box_exact_and_crowds_difficult(drawn, tmp_path):
    make("voc", tmp_path / "out", {"train": [drawn]})
    text = (tmp_path / "out/Annotations/engine_000000000000.xml").read_text()
    assert "<xmin>9</xmin>" in text and "<xmax>28</xmax>" in text  # pixels 8 to 27, counted from 1
    assert (tmp_path / "out/classes.txt").read_text() == "cup\nsea fish\nowl\n"
    (found,) = read_folder(tmp_path / "out", Defects("refuse"), first_pixel=1).values()
    assert [a["bbox"] for a in found.data["annotations"]] == [
        a["bbox"] for a in records(drawn)["annotations"]
    ]
    assert [a.get("difficult", 0) for a in found.data["annotations"]] == [0, 0, 0, 1]


def test_voc_masks_are_pictures_of_indices_the_smaller_object_on_top(drawn, tmp_path):
    done = make("voc", tmp_path / "out", {"train": [drawn]})
    found = {}
    for name in ("Object", "Class"):
        for path in sorted((tmp_path / f"out/Segmentation{name}").iterdir()):
            with Image.open(path) as picture:
                assert picture.mode == "P" and picture.size == (WIDTH, HEIGHT)
                colours = np.reshape(picture.getpalette(), (-1, 3))[:4].tolist()
                assert colours == [
                    [0, 0, 0],
                    [128, 0, 0],
                    [0, 128, 0],
                    [128, 128, 0],
                ]  # as VOC publishes them
                found[name, path.stem[-1]] = np.array(picture)
    plain, holed = MASKS["plain"], MASKS["holed"]
    assert np.array_equal(found["Object", "0"], np.where(plain, 1, np.where(holed, 2, 0)))
    assert np.array_equal(found["Class", "0"], np.where(plain, 2, np.where(holed, 1, 0)))
    assert np.array_equal(found["Object", "1"], MASKS["parted"])
    assert np.array_equal(found["Class", "2"], np.where(plain, 255, 0))  # a crowd
    stems = (tmp_path / "out/ImageSets/Segmentation/train.txt").read_text().split()
    assert len(stems) == 3 and (tmp_path / f"out/SegmentationClass/{stems[0]}.png").is_file()
    assert "sea fish:0,128,0::" in (tmp_path / "out/labelmap.txt").read_text()
    assert done.losses["masks that a smaller object covers in part"] == 1
    assert "<segmented>1<" in (tmp_path / f"out/Annotations/{stems[0]}.xml").read_text()


def test_voc_has_no_masks_of_an_image_where_an_object_has_none(drawn, tmp_path):
    labels = [dict(it) for it in records(drawn)["annotations"]]
    del labels[0]["segmentation"]
    mixed = part("e", records(drawn) | {"annotations": labels}, drawn.images)
    done = make("voc", tmp_path / "out", {"train": [mixed]})
    stems = (tmp_path / "out/ImageSets/Segmentation/train.txt").read_text().split()
    assert len(stems) == 2
    assert done.losses["masks, left out: other objects of their image have none"] == 1


# --- imagefolder ----------------------------------------------------------------------------------


def test_imagefolder_has_a_line_for_each_image_and_run_length_codes(drawn, tmp_path):
    make("imagefolder", tmp_path / "out", {"train": [drawn]})
    lines = [json.loads(it) for it in (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()]
    assert {it["file_name"] for it in lines} == {it.name for it in (tmp_path / "out/train").glob("*.png")}
    assert lines[0]["objects"]["category"] == ["sea fish", "cup"]
    code = {"size": [lines[0]["height"], lines[0]["width"]], "counts": lines[0]["objects"]["mask"][1]}
    assert np.array_equal(rle_to_mask(code), MASKS["holed"])
    assert len({tuple(it["objects"]) for it in lines}) == 1


def test_imagefolder_is_read_back_by_datasets(drawn, tmp_path):
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    make("imagefolder", tmp_path / "out", {"train": [drawn]})
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )
    assert found["train"].num_rows == 3 and found["train"][0]["image"].size == (WIDTH, HEIGHT)


# --- the labels of a synthetic set -----------------------------------------------------------------


def test_an_export_holds_what_a_set_offers_in_the_order_of_its_ids(tmp_path):
    """The same as of the dictionaries of the set, whatever shards its images lie in."""
    shards = []
    for shard in range(2):
        ids = [12 - shard, 2 + shard]
        data = {
            "images": [
                {"id": it, "file_name": f"{shard:05d}.zip/{it}.png", "width": WIDTH, "height": HEIGHT}
                for it in ids
            ],
            "annotations": [
                label(10 * it + place, it, MASKS[name], category)
                for it in ids
                for place, name, category in ((2, "plain", 7), (1, "holed", 3), (0, "parted", 7))
            ],
            "categories": CATEGORIES,
        }
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        shards.append(write_shard(tmp_path / "shards", data, pixels, number=shard, shards=2))
    path = write_filtered(shards, tmp_path / "set.json", FilterSettings(max_area_fraction=0.15))
    labels, images = open_synthetic(path)
    done = make("coco", tmp_path / "out", {"train": [Part("engine", labels, images)]})
    found = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    expected, _ = as_dictionaries(path)
    assert [image["file_name"] for image in found["images"]] == [f"engine_{it}.png" for it in (2, 3, 11, 12)]
    names = {image["id"]: image["file_name"] for image in found["images"]}
    written = [(names[a["image_id"]], a["category_id"], a["bbox"], a["area"]) for a in found["annotations"]]
    assert written == [
        (f"engine_{a['image_id']}.png", a["category_id"], a["bbox"], a["area"])
        for a in expected["annotations"]
    ]
    assert sum(done.objects.values()) == len(written) == 8


@pytest.mark.parametrize("layout", ["coco", "imagefolder", "yolo"])
def test_the_memory_of_an_export_does_not_grow_with_its_labels(layout, tmp_path):
    boxes = [{"category_id": 7, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0, "iscrowd": 0} for _ in range(40)]
    peaks = []
    for times in (1, 20):
        writer = LAYOUTS[layout](tmp_path / str(times), CATEGORIES, ("train",), "none")
        tracemalloc.start()
        for _ in range(times):
            for image in range(20):
                picture = Picture("1.png", image, WIDTH, HEIGHT, "engine")
                writer.add("train", picture, [box | {"id": it} for it, box in enumerate(boxes)])
        writer.finish()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# --- the folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", folder_module.LAYOUTS)
def test_an_interrupted_export_goes_on_and_ends_with_the_same_bytes(layout, drawn, tmp_path, monkeypatch):
    make(layout, tmp_path / "whole", {"train": [drawn]})
    copied = []

    def copy(*arguments):
        copied.append(arguments)
        if len(copied) == 3:
            arguments[2].write_bytes(b"half of it")  # what a power cut leaves of what was written last
            raise KeyboardInterrupt
        return original(*arguments)

    original = folder_module._copy
    monkeypatch.setattr(folder_module, "_copy", copy)
    monkeypatch.setattr(folder_module, "BATCH", 2)
    with pytest.raises(KeyboardInterrupt):
        export({"train": [drawn]}, CATEGORIES, layout, tmp_path / "out", "fingerprint")
    assert not (tmp_path / "out").exists()
    folder = {"coco": "images/train", "yolo": "images/train", "voc": "JPEGImages", "imagefolder": "train"}[
        layout
    ]
    picture = Path(folder, "engine_000000000000.png")
    before = (work_folder(tmp_path / "out") / picture).stat().st_mtime_ns
    make(layout, tmp_path / "out", {"train": [drawn]})
    assert (tmp_path / "out" / picture).stat().st_mtime_ns == before
    files = {it.relative_to(tmp_path / "whole") for it in (tmp_path / "whole").rglob("*") if it.is_file()}
    assert files == {it.relative_to(tmp_path / "out") for it in (tmp_path / "out").rglob("*") if it.is_file()}
    assert all((tmp_path / "whole" / it).read_bytes() == (tmp_path / "out" / it).read_bytes() for it in files)


def test_progress_of_another_export_is_not_continued(drawn, tmp_path):
    export({"train": [drawn]}, CATEGORIES, "voc", tmp_path / "out", "another")
    make("coco", tmp_path / "out", {"train": [drawn]})
    assert not (tmp_path / "out/Annotations").exists()


def test_a_folder_with_other_files_is_refused_an_earlier_export_is_replaced(drawn, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that no export has made"):
        export({"train": [drawn]}, CATEGORIES, "coco", target, "fingerprint")
    assert (target / "thesis.txt").read_text() == "mine"
    shutil.rmtree(target)
    make("voc", target, {"train": [drawn]})
    make("coco", target, {"train": [drawn]})
    assert (target / MARK).is_file() and not (target / "Annotations").exists()
    assert [it.name for it in tmp_path.iterdir()] == ["out"]
    check_target(target)


def test_images_of_one_name_in_several_folders_do_not_meet(drawn, tmp_path):
    root = tmp_path / "photos"
    for name in ("a/1.png", "b/1.png", "a_1.png", "a/1.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(drawn.images.read("00000.zip/000000000000.png"))
    names = ("a/1.png", "b/1.png", "a_1.png", "a/1.jpg")
    images = [{"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(names)]
    photos = part("real", {"images": images, "annotations": []}, ImageStore(root))
    make("yolo", tmp_path / "out", {"train": [photos]})
    assert len(yolo_rows(tmp_path / "out", "train")) == 4


# --- the card -------------------------------------------------------------------------------------


def settings(layout: str = "coco", **changes) -> ExportSettings:
    facts = {
        "scale": "miniature", "dataset": "lvis", "engine": "engine", "method": "mosaicfusion", "run_seed": 3,
        "paper": "Xie et al., arXiv:2309.13042", "code": "S-Lab License 1.0",
        "models": [{"use": "diffusion", "name": "models/own"}],
    }  # fmt: skip
    return ExportSettings(layout=layout, card=CardFacts(**facts), **changes)


def test_the_card_names_models_licences_seeds_counts_losses_and_citations(drawn, tmp_path):
    done = make("yolo", tmp_path / "out", {"train": [drawn]})
    text = card(settings("yolo"), done, CATEGORIES, [])
    for part in (
        "seed 3", "models/own", "weights of `diffusion`: unknown", "S-Lab License 1.0", "arXiv:2309.13042",
        "| train | engine | 3 | 3 |", "| 9 | owl | 0 |", "masks whose holes are filled: 1",
        "No table of this run has measured it yet.",
    ):  # fmt: skip
        assert part in text, part
    assert not text.startswith("---") and card(settings("imagefolder"), done, CATEGORIES, []).startswith(
        "---\n"
    )


def test_the_card_quotes_the_effect_of_a_table(tmp_path):
    table = tmp_path / "lvis.csv"
    assert effect(table, "ours") == []
    table.write_text(
        "study,detector,arm,label,seeds_present,seeds_wanted,box_AP_mean,box_AP_delta\n"
        "LVIS,rcnn,real,real images,3,3,40.0000,\nLVIS,rcnn,ours,+ ours,3,3,42.5000,2.5000\n"
    )
    (line,) = effect(table, "ours")
    assert "3 of 3 seeds: box AP 42.5 (+2.5)" in line


def test_areas_of_what_is_written_are_those_of_the_masks(drawn, tmp_path):
    make("coco", tmp_path / "out", {"train": [drawn]})
    data = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    for annotation in data["annotations"]:
        rle = segmentation_to_rle(annotation["segmentation"], HEIGHT, WIDTH)
        assert area_of_rle(rle) == annotation["area"]
    write_annotations(tmp_path / "again.json", data)
