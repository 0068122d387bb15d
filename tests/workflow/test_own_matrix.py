"""`make own` on every kind of folder: all the way to table, export and report, in one run."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import own_layouts
from checkouts import CONFIG, copy_repository
from gen4det.core.yaml_files import read_yaml
from gen4det.data.defects import Defects
from gen4det.data.images import encode_image
from gen4det.data.sources.folder import read_folder
from gen4det.orchestration.own import Wishes, prepare
from warm_python import warm

pytestmark = pytest.mark.workflow
RESULTS = Path("results/own")
BUDGET = {"images_per_category": 1, "canvases_per_geometry": 1, "drop_image": False}


def boxes_alone(data: dict) -> None:
    for it in data["annotations"]:
        del it["segmentation"]


def one_class(data: dict) -> None:
    data["categories"] = data["categories"][:1]
    data["annotations"] = [it for it in data["annotations"] if it["category_id"] == 1]


def all_frequent(data: dict) -> None:
    for it in data["categories"]:
        it["frequency"] = "f"


def broken(data: dict) -> None:
    data["annotations"][0]["bbox"] = [5, 5, 0, 9]
    data["annotations"][2]["category_id"] = 9


def of_mixed_sizes(folder: Path) -> Path:
    """Every other image is larger, or stands upright."""
    own_layouts.coco(folder)
    rng = np.random.default_rng(0)
    for path in folder.glob("annotations/*.json"):
        data = json.loads(path.read_text())
        for k, image in enumerate(data["images"]):
            width, height = ((96, 72), (300, 201), (97, 240))[k % 3]
            image |= {"width": width, "height": height}
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            next(folder.rglob(image["file_name"])).write_bytes(encode_image(pixels, "png"))
        path.write_text(json.dumps(data))
    return folder


def unlabelled(folder: Path) -> Path:
    own_layouts.coco(folder)
    shutil.rmtree(folder / "annotations")
    return folder


def coco(**changes):
    return lambda folder: own_layouts.coco(folder, **changes)


NAMES = (("cup", ""), ("fish", "an animal"))
CASES = {
    # name: folder, names, layout of the export, whether masks are learnt
    "boxes": (coco(train=boxes_alone, val=boxes_alone), (), "yolo", False),
    "sizes": (of_mixed_sizes, (), "coco", True),
    "single": (coco(train=one_class, val=one_class), (), "imagefolder", True),
    "frequent": (coco(train=all_frequent, val=all_frequent), (), "voc", True),
    "bad": (coco(train=broken), (), "yolo", True),
    "voc": (own_layouts.voc, (), "voc", False),
    "yolo": (own_layouts.yolo, (), "yolo", False),
    "names": (None, NAMES, "coco", None),
    "unlabelled": (unlabelled, NAMES, "yolo", None),
}
TABLES = [name for name, case in CASES.items() if case[3] is not None]


def together(files: dict[str, dict]) -> dict:
    """One scale of many that `make own` wrote: data set, detector, study and engine of each by its case."""
    whole = {key: files["boxes"][key] for key in ("scale", "results", "foundation", "needs", "seeds")}
    whole |= {key: {} for key in ("datasets", "detectors", "engines", "arms")} | {
        "studies": [],
        "exports": [],
    }
    for case, values in files.items():
        whole["datasets"][case] = values["datasets"]["own"]
        engine = values["engines"]["mosaicfusion"] | BUDGET
        engine["denoising"] = engine["denoising"] | {"steps": 2}
        whole["engines"][f"mosaicfusion-{case}"] = engine
        merged = case in TABLES
        whole["exports"].append(
            {"dataset": case, "engine": f"mosaicfusion-{case}", "layout": CASES[case][2], "merged": merged}
        )
        if merged:
            whole["detectors"][case] = values["detectors"]["own"] | {"iterations": 2}
            whole["arms"][case] = ["real", "mosaicfusion"]
            whole["studies"].append(case)
    return whole


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout in which one run has made all cases and a report of them."""
    root = tmp_path_factory.mktemp("matrix")
    (root / "checkout").mkdir()
    checkout = copy_repository(root / "checkout", Path(__file__).with_name("config.yaml"))
    files = {}
    study = read_yaml(checkout / "config/studies/own.yaml")
    for case, (write, names, _, _) in CASES.items():
        folder = write(root / case) if write else None
        output = root / f"{case}.yaml"
        if case == "bad":
            prepare(Wishes(own_layouts.coco(root / "good"), (), ("mosaicfusion",)), output)
            text = output.read_text().replace("on_bad_annotation: refuse", "on_bad_annotation: drop")
            output.write_text(text.replace(str(root / "good"), str(folder)))
        prepare(Wishes(folder, names, ("mosaicfusion",)), output)
        files[case] = read_yaml(output)
        arms = study["arms"] | {
            "mosaicfusion": study["arms"]["mosaicfusion"] | {"synthetic": [f"mosaicfusion-{case}"]}
        }
        arms = {row: arms[row] for row in ("real", "mosaicfusion")}
        about = {"title": case, "dataset": case, "detector": case, "arms": arms}
        text = yaml.safe_dump(study | about, sort_keys=False)
        (checkout / f"config/studies/{case}.yaml").write_text(text)
        engine = yaml.safe_dump({f"mosaicfusion-{case}": {"base": "mosaicfusion"}})
        (checkout / f"config/engines/{case}.yaml").write_text(engine)
    (checkout / CONFIG).write_text(yaml.safe_dump(together(files)))
    targets = [str(RESULTS / f"tables/{case}.csv") for case in TABLES]
    targets += [
        str(RESULTS / "tables/voc_categories.csv"),
        *(str(export(case) / "export.json") for case in CASES),
    ]
    with warm(checkout / "workflow"):
        checkout.make("--", *targets)
        checkout.make("--report", "results/report.zip", "--", *targets)
    return checkout


def export(case: str) -> Path:
    layout = CASES[case][2] + "-merged" * (case in TABLES)
    return RESULTS / "exports" / case / f"mosaicfusion-{case}" / layout


def rows(path: Path) -> list[dict]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("case", TABLES)
def test_every_kind_of_folder_becomes_a_table(case, made):
    table = {row["arm"]: row for row in rows(made / RESULTS / "tables" / f"{case}.csv")}
    assert list(table) == ["real", "mosaicfusion"]
    for row in table.values():
        assert row["seeds_present"] == "1" and row["box_AP_mean"]
        assert bool(row["mask_AP_mean"]) is CASES[case][3]


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_folder_and_names_alone_become_a_data_set_for_other_tools(case, made):
    folder = made / export(case)
    about = json.loads((folder / "export.json").read_text())
    assert [it["name"] for it in about["categories"]] == ["cup", "fish"][: 1 if case == "single" else 2]
    drawn = about["images"][f"train/mosaicfusion-{case}"]
    assert drawn > 0 and about["objects"] > 0
    card = (folder / "README.md").read_text()
    if case in TABLES:
        assert (about["images"]["train/real"], about["images"]["val/real"]) == (12, 6)
        assert f"{case}, {case}, + MosaicFusion, 1 of 1 seeds: box AP" in card  # made after the table
    else:
        assert "there are none" in card
    if CASES[case][2] != "imagefolder":
        splits = read_folder(folder, Defects("refuse"))
        total = drawn + 12 * (case in TABLES)
        assert len(next(iter(splits.values())).data["images"]) == total


def test_the_report_says_what_was_left_out_and_why(made):
    assert (made / "results/report.zip").is_file()
    shutil.unpack_archive(made / "results/report.zip", made / "results")
    (page,) = (made / "results").glob("*/report.html")
    text = page.read_text()
    for case in TABLES:
        assert f"{case}.csv" in text
    assert "could not be used and were left out" in text
    left_out = rows(made / RESULTS / "data/bad/dropped.csv")
    assert sum(int(row["left out"]) for row in left_out) == 2
    assert {row["what"] for row in left_out} == {"annotation"} and all(row["the first"] for row in left_out)
    assert rows(made / RESULTS / "data/boxes/dropped.csv")[0]["what"] == "nothing"


def test_a_table_of_categories_is_beside_it(made):
    found = {row["name"]: row["images_train"] for row in rows(made / RESULTS / "tables/voc_categories.csv")}
    assert found == {"cup": "12", "fish": "12"}


def test_no_table_is_promised_without_validation_images(made):
    assert not (made / RESULTS / "tables/names.csv").exists()
    refused = made.run("--dry-run", "--", str(RESULTS / "tables/names.csv"))
    assert refused.returncode != 0


def test_a_folder_with_files_of_others_is_refused_and_left_alone(made):
    folder = made / RESULTS / "exports/names/mosaicfusion-names/voc"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    refused = made.run("--", str(folder.relative_to(made.folder) / "export.json"))
    assert refused.returncode != 0 and "holds files that no export has made" in refused.stdout
    assert [it.name for it in folder.iterdir()] == ["thesis.txt"]
