"""Base and novel categories: what the file of COCO's split says, and that an empty column is an error."""

import json
from pathlib import Path

import pytest
from test_predict_and_measure import run_measure, write_data

from gen4det.core.errors import InputError
from gen4det.core.yaml_files import read_yaml
from gen4det.data.category_splits import with_splits
from gen4det.data.datasets import load_dataset
from gen4det.data.source_settings import SubsetDataset
from gen4det.data.subsets import write_subset
from gen4det.evaluation.predictions import Predictions, images_identity, write_predictions
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import read_metrics
from gen4det.orchestration.category_splits import category_split
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]
COCO = ROOT / "resources/splits/coco_ovd.yaml"


def test_the_split_of_coco_has_48_base_and_17_novel_categories():
    split = read_yaml(COCO)
    base, novel = split["base"], split["novel"]
    assert (len(base), len(novel)) == (48, 17) and not base.keys() & novel.keys()
    assert len({*base.values(), *novel.values()}) == 65
    known = {"person": 1, "bear": 23, "toothbrush": 90} | {"airplane": 5, "cat": 17, "scissors": 87}
    assert {**base, **novel}.items() >= known.items()
    assert {"airplane", "cat", "scissors"} <= novel.keys()
    assert not {"sports ball", "stop sign", "dining table"} & {*base, *novel}  # of neither


def write_split(folder: Path, base: dict, novel: dict) -> Path:
    (folder / "split.yaml").write_text(json.dumps({"base": base, "novel": novel}))
    return folder / "split.yaml"


def test_categories_are_matched_by_name(tmp_path):
    categories = [{"id": 7, "name": "Traffic_Light"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "toy"}]
    path = write_split(tmp_path, {"traffic light": 10}, {"cat": 17})
    assert [c["split"] for c in with_splits(categories, path)] == ["base", "novel", None]
    with pytest.raises(InputError, match=r"split\.yaml: novel: 'dog' is not a category of the data set"):
        with_splits(categories, write_split(tmp_path, {"cat": 1}, {"dog": 2}))
    with pytest.raises(InputError, match=r"split\.yaml: 'Cat' stands there twice"):
        with_splits(categories, write_split(tmp_path, {"cat": 1}, {"Cat": 2}))


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Function that measures perfect detections of the first image's category."""
    dataset = write_data(tmp_path, [{"id": 4, "name": "cup"}, {"id": 9, "name": "key"}])

    def measure(settings: dict, descriptor: Path = dataset) -> dict:
        truth = load_dataset(descriptor).val.load()
        found = [
            {key: label[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
            for label in truth["annotations"]
            if label["category_id"] == 4
        ]
        about = {"images": images_identity(truth["images"]), "max_per_image": 5, "categories": [4, 9]}
        write_predictions(tmp_path / "p.npz", Predictions(found, about))
        settings = {"evaluation": settings}
        return run_measure(monkeypatch, tmp_path / "metrics.json", descriptor, tmp_path / "p.npz", settings)

    measure.folder, measure.dataset = tmp_path, dataset
    return measure


def test_means_over_base_and_novel_come_from_the_file(measured):
    path = write_split(measured.folder, {"cup": 1}, {"key": 2})
    box = measured({"splits": {"lvis": str(path)}})["box"]
    assert (box["AP50base"], box["AP50novel"], box["AP50basenovel"]) == (100, 0, 50)
    box = measured({})["box"]
    assert box["APbase"] is box["APnovel"] is box["AP50basenovel"] is None and box["AP"] == 50


def test_a_subset_is_measured_with_its_own_groups_and_counts(measured):
    """The validation file is that of the whole and tells of its training images."""
    folder = measured.folder
    for split in ("train", "val"):
        data = json.loads((folder / f"{split}.json").read_text())
        for category in data["categories"]:
            category |= {"frequency": "c", "image_count": 60, "instance_count": 70}
        (folder / f"{split}.json").write_text(json.dumps(data))
    assert [c["images_train"] for c in measured({})["per_category"]] == [60, 60]
    subset = folder / "subset/dataset.json"
    settings = SubsetDataset(source="subset", of="lvis", share=0.5)
    write_subset("lvis-50pct", settings, measured.dataset, subset)
    images = load_dataset(subset).train.load()["annotations"]
    counts = [sum(label["category_id"] == category for label in images) for category in (4, 9)]
    metrics = measured({}, subset)
    assert [c["images_train"] for c in metrics["per_category"]] == counts and sum(counts) in (5, 6)
    assert [c["frequency"] for c in metrics["per_category"]] == ["r", "r"]
    assert metrics["box"]["APr"] == metrics["box"]["AP"] == 50 and metrics["box"]["APc"] is None


# --- what would be an empty column ------------------------------------------------------------------


def test_a_table_of_base_and_novel_without_a_split_is_one_line(measured):
    study = {"title": "t", "scale": "s", "arms": {"real": {}}, "metrics": ["box_AP50novel"]}
    settings = StudySettings.model_validate(study)
    measured({})
    argument = f"real:0={measured.folder / 'metrics.json'}"
    with pytest.raises(InputError, match=r"metrics\.json: box_AP50novel: no category is base or novel; name"):
        read_metrics([argument], settings)
    path = write_split(measured.folder, {"cup": 1}, {"key": 2})
    measured({"splits": {"lvis": str(path)}})
    assert read_metrics([argument], settings)[0]["real"][0]["box"]["AP50novel"] == 0


@pytest.fixture
def project_of(tmp_path):
    """Function that loads the paper's scale with a study of base and novel categories of COCO."""
    for folder in ("config", "resources"):
        (tmp_path / folder).mkdir()
        for path in (ROOT / folder).iterdir():
            if path.name != "studies":
                (tmp_path / folder / path.name).symlink_to(path)
    (tmp_path / "config/studies").mkdir()
    text = "title: t\ndataset: coco-1pct\ndetector: mask-rcnn\narms: {real: {}}\nmetrics: [box_AP50novel]\n"
    (tmp_path / "config/studies/ovd.yaml").write_text(text)

    def load(splits: dict):
        values = read_yaml(ROOT / "config/paper.yaml") | {
            "studies": ["ovd"],
            "evaluation": {"splits": splits},
        }
        return load_project(values, source="paper.yaml", root=tmp_path)

    return load


def test_public_data_without_a_split_is_refused_before_anything_runs(project_of):
    with pytest.raises(InputError, match=r"ovd\.yaml: metrics: box_AP50novel: no category of coco-1pct is"):
        project_of({})
    file = "resources/splits/coco_ovd.yaml"
    assert category_split("coco-1pct", project_of({"coco": file}).config) == file
    with pytest.raises(InputError, match=r"paper\.yaml: evaluation\.splits\.coco: no such file x\.yaml"):
        project_of({"coco": "x.yaml"})
    with pytest.raises(InputError, match=r"evaluation\.splits\.cocoo: not a data set .*mean 'coco'"):
        project_of({"cocoo": file})
