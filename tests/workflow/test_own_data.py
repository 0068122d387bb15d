"""From a stranger's folder, or from names alone, to a table and to data sets for other tools."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import own_layouts
from gen4det.data.defects import Defects
from gen4det.data.sources.folder import read_folder
from gen4det.orchestration.own import Wishes, prepare

pytestmark = pytest.mark.workflow
EXPORTS = Path("results/own/exports/own/mosaicfusion")


def written(checkout, wishes: Wishes) -> None:
    """config/own.yaml of a checkout, with fewer and coarser images."""
    prepare(wishes, checkout / "config/own.yaml")
    for old, new in (
        ("images_per_category: 8", "images_per_category: 2"),
        ("canvases_per_geometry: 4", "drop_image: false"),
        ("steps: 15", "steps: 4"),
    ):
        checkout.edit("config/own.yaml", old, new)


def made(checkout, *targets: str) -> str:
    """What a run with that file says; it must succeed."""
    shutil.copy(checkout / "config/own.yaml", checkout / "config/test.yaml")
    return checkout.make("--", *targets)


def test_names_alone_become_data_sets_for_other_tools(fresh):
    written(fresh, Wishes(None, (("cup", ""), ("fish", "an animal")), ("mosaicfusion",)))
    made(fresh)
    for layout in ("coco", "yolo"):
        folder = fresh / EXPORTS / layout
        (found,) = read_folder(folder, Defects("refuse")).values()
        assert [category["name"] for category in found.data["categories"]] == ["cup", "fish"]
        assert 0 < len(found.data["images"]) <= 4 and found.data["annotations"]
        about = json.loads((folder / "export.json").read_text())
        assert about["objects"] == len(found.data["annotations"])
        assert "not in here: there are none" in (folder / "README.md").read_text()
    assert not (fresh / "results/own/tables").exists()

    (fresh / EXPORTS / "voc").mkdir()
    (fresh / EXPORTS / "voc/thesis.txt").write_text("mine")
    refused = fresh.run("--", str(EXPORTS / "voc/export.json"))
    assert refused.returncode != 0 and "holds files that no export has made" in refused.stdout
    assert (fresh / EXPORTS / "voc/thesis.txt").read_text() == "mine"


def test_boxes_of_a_voc_folder_become_a_table_and_a_merged_data_set(fresh, tmp_path):
    folder = own_layouts.voc(tmp_path / "mine")
    written(fresh, Wishes(folder, (), ("mosaicfusion",)))
    fresh.edit("config/own.yaml", "iterations: 300", "iterations: 4")
    made(fresh, "results/own/tables/own.csv", "results/own/tables/own_categories.csv")
    with open(fresh / "results/own/tables/own_categories.csv", newline="") as stream:
        assert {row["name"]: row["images_train"] for row in csv.DictReader(stream)} == {
            "cup": "12",
            "fish": "12",
        }
    with open(fresh / "results/own/tables/own.csv", newline="") as stream:
        rows = {row["arm"]: row for row in csv.DictReader(stream)}
    assert rows.keys() == {"real", "mosaicfusion"}
    assert all(row["box_AP_mean"] and not row["mask_AP_mean"] for row in rows.values())
    made(fresh, str(EXPORTS / "yolo-merged/export.json"))
    found = read_folder(fresh / EXPORTS / "yolo-merged", Defects("refuse"))
    assert len(found["val"].data["images"]) == 6 and len(found["train"].data["images"]) > 12
    assert (
        "Own data, own, + MosaicFusion, 1 of 1 seeds"
        in (fresh / EXPORTS / "yolo-merged/README.md").read_text()
    )
