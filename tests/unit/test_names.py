"""Names of categories alone as data, and the rarest categories by a setting."""

import math
from collections import Counter
from pathlib import Path

import pytest

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import merge, read_yaml
from gen4det.data.annotations import category_counts
from gen4det.data.datasets import load_dataset
from gen4det.data.names import write_names
from gen4det.data.source_settings import NamesDataset
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.sources import latent_cell, load_tokenizer
from gen4det.engines.mosaicfusion.plan import plan_manifest, rarest
from gen4det.engines.mosaicfusion.settings import Settings, rarest_number
from gen4det.engines.mosaicfusion.work import drawing
from gen4det.orchestration.costs.data_sizes import DataSizes
from gen4det.orchestration.costs.tasks import jobs_by_rule, tasks
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]
NAMES = ["cup", {"name": "fish", "definition": "an animal with fins"}, "key"]
ALONE = {
    "datasets": {"mine": {"source": "names", "names": NAMES}},
    "studies": [],
    "exports": [{"dataset": "mine", "engine": "mosaicfusion", "layout": "yolo"}],
}
SMALL = {"region_height": 64, "region_width": 64, "overlap_height": 8, "overlap_width": 8}


def project(**changes):
    scale = read_yaml(ROOT / "config/config.yaml")
    kept = {key: scale[key] for key in ("scale", "results", "shards", "foundation", "detectors", "engines")}
    return load_project(kept | ALONE | changes, source="own.yaml", root=ROOT)


def refusal(**changes) -> str:
    with pytest.raises(InputError) as error:
        project(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def dataset(folder, *, format: str = "coco"):
    output = folder / "data" / "dataset.json"
    write_names(
        "mine",
        parse_settings(NamesDataset, ALONE["datasets"]["mine"] | {"format": format}, source=""),
        output,
    )
    return load_dataset(output)


@pytest.mark.parametrize("format", ["coco", "lvis"])
def test_names_alone_are_a_data_set_that_mosaicfusion_draws(format, tmp_path):
    data = dataset(tmp_path, format=format)
    with pytest.raises(InputError, match="names alone; a table needs real validation images"):
        data.validation  # noqa: B018
    model = ModelSource(path=str(ROOT / "resources/miniature/stable-diffusion"))
    rows = plan_manifest(
        data.train.load(),
        Settings(images_per_category=2, **SMALL),
        0,
        load_tokenizer(model),
        latent_cell(model),
    )
    assert Counter(row["main_category_id"] for row in rows) == {1: 2, 2: 2, 3: 2}
    assert any("an animal with fins" in region["prompt"] for row in rows for region in row["regions"])


def test_the_target_of_names_is_a_set_and_its_export(tmp_path):
    whole = project()
    assert Jobs(whole).targets() == ["results/miniature/exports/mine/mosaicfusion/yolo/export.json"]
    counted = jobs_by_rule(tasks(whole))
    assert counted == {"names": 1, "plan": 1, "generate": 2, "filter": 1, "export": 1}
    assert DataSizes(whole)("mine").categories == {"r": 3, "c": 0, "f": 0}


def test_a_table_over_names_is_refused_in_one_line():
    scale = read_yaml(ROOT / "config/config.yaml")
    whole = {name: data for name, data in scale["datasets"].items() if data.get("of") != "lvis"}
    data = whole | {"lvis": ALONE["datasets"]["mine"]}
    arms = {"lvis_rare": ["real", "mosaicfusion"]}
    said = refusal(datasets=data, studies=["lvis_rare"], arms=arms, exports=[])
    assert "a table needs real validation images" in said


def test_what_needs_real_images_is_refused_for_names():
    export = ALONE["exports"][0]
    assert "gen2det needs real images" in refusal(exports=[export | {"engine": "gen2det"}])
    assert "nothing to merge with" in refusal(exports=[export | {"merged": True}])
    assert "is not a data set" in refusal(exports=[export | {"dataset": "yours"}])
    assert "no such engine" in refusal(exports=[export | {"engine": "mosaic"}])
    assert "studies: name at least one" in refusal(exports=[])
    filtered = {"mosaicfusion": SMALL | {"filter": {"agreement": {"enabled": True, "detector": "mask-rcnn"}}}}
    assert "filter.agreement asks a detector of real images" in refusal(engines=filtered)


@pytest.mark.parametrize("names", [["cup", "cup"], ["cup", " "], []])
def test_names_twice_or_empty_are_refused(names):
    refusal(datasets={"mine": {"source": "names", "names": names}})


# --- the rarest categories ------------------------------------------------------------------------


def counted(*images: int) -> dict:
    """All frequent, as LVIS would call them, category k in so many images."""
    shown = [(category, image) for category, number in enumerate(images, 1) for image in range(number)]
    return {
        "images": [{"id": k} for k in range(max(images))],
        "annotations": [{"image_id": image, "category_id": category} for category, image in shown],
        "categories": [{"id": k, "name": f"thing {k}", "frequency": "f"} for k, _ in enumerate(images, 1)],
    }


def test_the_rarest_of_a_set_are_drawn_whatever_lvis_calls_them():
    data = counted(150, 120, 140, 110, 130)
    assert rarest(data, 2) == [2, 4]
    assert rarest(data, 0.5) == [2, 4, 5]  # 2.5, rounded up
    assert rarest(data, 99) == [1, 2, 3, 4, 5]
    model = ModelSource(path=str(ROOT / "resources/miniature/stable-diffusion"))
    settings = Settings(images_per_category=3, main_rarest=2, **SMALL)
    rows = plan_manifest(data, settings, 0, load_tokenizer(model), latent_cell(model))
    assert Counter(row["main_category_id"] for row in rows) == {2: 3, 4: 3}
    everything = plan_manifest(
        data, settings.model_copy(update={"main_rarest": 99}), 0, load_tokenizer(model), latent_cell(model)
    )
    drawn = {(row["main_category_id"], row["number"]): row["seed"] for row in everything}
    assert all(drawn[row["main_category_id"], row["number"]] == row["seed"] for row in rows)


def test_equally_rare_ones_are_those_with_fewer_objects_then_the_first():
    data = counted(5, 5, 5)
    data["annotations"].append({"image_id": 0, "category_id": 1})
    assert category_counts(data)[1] == (5, 6)
    assert rarest(data, 1) == [2] and rarest(data, 2) == [2, 3]


def test_the_estimate_counts_the_rarest_alone():
    size = DataSizes(project())("mine").model_copy(update={"categories": {"r": 1, "c": 2, "f": 7}})
    for amount in (1, 3, 0.25, 50):
        settings = Settings(main_rarest=amount, images_per_category=4)
        number = min(10, amount if amount >= 1 else math.ceil(amount * 10))
        assert rarest_number(amount, 10) == number
        assert drawing(settings, size).images == 4 * number


def test_a_share_of_nothing_is_refused():
    for amount in (0, -1, 1.5):
        with pytest.raises(InputError):
            parse_settings(Settings, merge(SMALL, {"main_rarest": amount}), source="own.yaml")
