"""How right labels are: matching with the truth, measuring a head and a detector, table and figure."""

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gen4det.core.errors import InputError
from gen4det.core.provenance import write_json
from gen4det.core.yaml_files import read_yaml
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, load_dataset, write_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.detection.detectors import build_model, load_config
from gen4det.detection.grounding_head import GroundingHead
from gen4det.detection.grounding_settings import GroundingShape
from gen4det.detection.weights import save_weights
from gen4det.diffusion.settings import ModelSource
from gen4det.engines.instagen.feature_bank import FeatureBank
from gen4det.engines.instagen.label_quality import (
    LabelQuality,
    counted,
    matched,
    measure,
    one_of_each,
    rendered_scenes,
)
from gen4det.engines.instagen.saved_head import keep_student, save_head
from gen4det.engines.instagen.vocabulary import Vocabulary
from gen4det.evaluation.label_quality import figure, row, shares, to_csv, to_markdown
from gen4det.miniature.categories import CATEGORIES
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.label_jobs import LabelJobs
from gen4det.orchestration.project import load_project
from gen4det.stages import label_table
from instagen_set import SHAPE, Run, small
from tiny_models import tiny_pipeline

ROOT = Path(__file__).parents[2]
WORDS = Vocabulary((1, 2), (3,), (1, 2, 3))

# --- counting -------------------------------------------------------------------------------------------


def test_each_object_is_found_once_by_the_best_label_of_its_category():
    truth = [(1, [0, 0, 10, 10]), (1, [40, 0, 10, 10]), (3, [0, 40, 10, 10])]
    assert matched([(1, 0.9, [0, 0, 10, 10]), (1, 0.8, [1, 0, 10, 10])], truth) == 1  # the second is a copy
    assert matched([(1, 0.5, [0, 0, 10, 10]), (1, 0.8, [41, 0, 10, 10])], truth) == 2
    assert matched([(2, 0.9, [0, 0, 10, 10]), (3, 0.9, [0, 0, 10, 10])], truth) == 0  # of another category
    assert matched([(3, 0.9, [0, 40, 10, 20])], truth) == 1  # an overlap of exactly a half
    assert matched([(3, 0.9, [0, 40, 10, 21])], truth) == 0


def test_base_and_novel_categories_are_counted_apart():
    found = [[(1, 0.9, [0, 0, 8, 8]), (3, 0.9, [0, 0, 8, 8])], [(2, 0.4, [0, 0, 8, 8])]]
    truth = [[(1, [0, 0, 8, 8])], [(3, [0, 0, 8, 8]), (2, [9, 9, 8, 8])]]
    assert counted(found, truth, WORDS) == {
        "base": {"right": 1, "labels": 2, "objects": 2},
        "novel": {"right": 0, "labels": 1, "objects": 1},
    }
    assert shares({"right": 3, "labels": 4, "objects": 6}) == (75.0, 50.0)
    assert shares({"right": 0, "labels": 0, "objects": 6}) == (None, 0.0)


# --- measuring ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A random generator, head and detector over the miniature's categories, and what was drawn."""
    folder = tmp_path_factory.mktemp("quality")
    categories = [
        {"id": it.id, "name": it.name, "split": "novel" if it.novel else "base"} for it in CATEGORIES
    ]
    with ShardWriter(folder / "x.zip") as writer:
        writer.add("1.png", encode_image(np.zeros((16, 16, 3), np.uint8), "png"))
    images = [{"id": 1, "file_name": "1.png", "height": 16, "width": 16}]
    data = {"images": images, "annotations": [], "categories": categories}
    write_annotations(folder / "x.json", data)
    split = SplitDescriptor(annotations="x.json", images="x.zip")
    write_dataset(
        folder / "dataset.json",
        DatasetDescriptor(name="x", format="coco", categories=categories, train=split, val=split),
    )
    model = folder / "model"
    tiny_pipeline(layers=1).save_pretrained(model)
    settings = small(
        images={"base_per_category": 1, "novel_per_category": 1, "batch_size": 8},
        head={"epochs": 4, "self_training_from": 3},
        beta=0.0005,
    )
    run = Run(settings, model, load_dataset(folder / "dataset.json"), folder)
    run.generator = model
    novel = [row for row in run.worker("plan").plan() if row["set"] == "novel"][:3]
    run.draw([it | {"index": number, "batch": 0} for number, it in enumerate(novel)], run.shard)
    run.bank = FeatureBank(ModelSource(path=str(model)), "float32", "cpu")
    torch.manual_seed(0)
    student = GroundingHead(run.bank.channels, run.bank.text_channels, GroundingShape(**SHAPE))
    for epochs in (2, 3):
        (folder / "kept").mkdir(exist_ok=True)
        keep_student(folder / "kept", student, epochs)
    save_head(run.head, student, run.bank, None, folder / "kept")
    config = load_config(ROOT / "config/detectors/miniature_faster_rcnn.py", classes=len(categories))
    run.weights = folder / "weights.safetensors"
    save_weights(
        run.weights,
        build_model(config.model).state_dict(),
        model=config.model,
        test_pipeline=config.test_pipeline,
        categories=categories,
    )
    return run


def test_a_head_is_measured_along_its_epochs_and_the_detector_beside_it(made):
    found, images = measure(
        made.settings, made.dataset, made.bank, head=made.head, detector=made.weights, shard=made.shard,
        scenes=3, shown=2,
    )  # fmt: skip
    assert json.loads(json.dumps(found)) == found
    assert [it["epochs"] for it in found["curve"]] == [2, 3, 4] and (found["begins"], found["before"]) == (
        3,
        3,
    )
    objects = {kind: found["curve"][0][kind]["objects"] for kind in ("base", "novel")}
    assert sum(objects.values()) >= 3
    counts = [found["detector"], *found["curve"], *found["betas"]]
    assert all(it[kind]["objects"] == objects[kind] for it in counts for kind in objects)
    assert found["curve"][-1]["novel"]["labels"] > 0  # beta is low
    labels = [it["novel"]["labels"] + it["base"]["labels"] for it in found["betas"]]
    assert labels == sorted(labels, reverse=True) and labels[-1] < labels[0]
    assert len(images) == len(found["shown"]) == 2 and images[0].shape == (64, 64, 3)
    assert found["shown"][0]["before"] == found["shown"][0]["after"]  # all heads are one and the same


def test_labels_that_are_the_truth_are_all_right(made, monkeypatch):
    scenes = rendered_scenes(4, "a photograph of {}", made.bank)
    assert scenes.images.shape == (4, 64, 64, 3) and scenes.latents.shape == (4, 4, 8, 8)
    truth = {it["id"]: there for it, there in zip(scenes.records, scenes.truth, strict=True)}
    monkeypatch.setattr(
        LabelQuality,
        "found",
        lambda self, head, features, records, least: [
            [(category, 0.9, box) for category, box in truth[it["id"]]] for it in records
        ],
    )
    last = LabelQuality(made.settings, made.dataset, made.bank, made.head).of_heads(scenes)["curve"][-1]
    for kind in ("base", "novel"):
        assert last[kind]["right"] == last[kind]["labels"] == last[kind]["objects"]
    for record, there in zip(scenes.records, scenes.truth, strict=True):
        names = {it.id: it.name for it in CATEGORIES}
        assert all(names[category] in record["prompt"] for category, _ in there)


def test_the_control_measures_the_detector_alone(made):
    settings = made.settings.model_copy(
        update={"labels": made.settings.labels.model_copy(update={"novel_by": "detector"})}
    )
    found, images = measure(
        settings, made.dataset, made.bank, head=made.head, detector=made.weights, shard=made.shard, scenes=1,
        shown=2,
    )  # fmt: skip
    assert found["curve"] == found["shown"] == images == [] and found["novel_by"] == "detector"


def test_categories_of_others_have_no_truth(made, tmp_path):
    data = made.dataset.train.load()
    data["categories"] = [it | {"name": "owl" if it["id"] == 1 else it["name"]} for it in data["categories"]]
    other = SimpleNamespace(path=Path("d.json"), name="d", categories=data["categories"])
    with pytest.raises(InputError, match=r"^d\.json: category 'owl' is none of the miniature's"):
        LabelQuality(made.settings, other, made.bank, made.head)


def test_images_that_are_shown_are_of_different_categories():
    records = [{"id": number, "categories": [number // 3]} for number in range(15)]
    assert [it["id"] for it in one_of_each(records, 3)] == [0, 6, 12]
    assert one_of_each(records[:2], 3) == records[:1] and one_of_each([], 3) == []


# --- table and figure -----------------------------------------------------------------------------------


def count(right: int, labels: int, objects: int) -> dict:
    return {"right": right, "labels": labels, "objects": objects}


def quality(novel_by: str = "head", **changes) -> dict:
    """As `label_quality` writes it."""
    curve = [
        {"epochs": 3, "base": count(1, 4, 10), "novel": count(1, 5, 4)},
        {"epochs": 6, "base": count(5, 10, 10), "novel": count(3, 4, 4)},
    ]
    boxes = {"before": [[0.5, [1, 2, 3, 4]]], "after": []}
    return {
        "scenes": 9, "novel_by": novel_by, "alpha": 0.8, "beta": 0.4, "detector_score": 0.6, "begins": 3,
        "before": 3, "curve": curve, "betas": [],
        "detector": {"base": count(8, 8, 10), "novel": count(1, 2, 4)},
        "shown": [{"set": "novel", "names": ["ring|x"], "image": "00.png", **boxes}],
    } | changes  # fmt: skip


def test_a_row_has_the_labels_that_are_used_and_those_of_the_head_before_self_training():
    found = row("d/e", "words", quality())
    assert (found["precision_base"], found["recall_base"]) == (100.0, 80.0)  # the detector's
    assert (found["precision_before"], found["recall_before"]) == (20.0, 25.0)
    assert (found["precision_novel"], found["recall_novel"], found["score"]) == (75.0, 75.0, 0.4)
    control = row("d/f", "a|b", quality("detector", curve=[], shown=[]))
    assert (control["precision_novel"], control["recall_novel"], control["score"]) == (50.0, 25.0, 0.6)
    assert control["precision_before"] is None
    never = row("d/g", "g", quality(begins=None, before=None))
    assert never["recall_before"] is None and never["recall_novel"] == 75.0
    first, second, _ = csv.DictReader(io.StringIO(to_csv([found, control, never])))
    assert first["recall_before"] == "25.00" and second["recall_before"] == ""
    assert r"| a\|b | detector |" in to_markdown([control])


def test_the_figure_has_lines_of_each_head_and_pictures_of_the_last_that_was_kept_before():
    image = np.zeros((16, 16, 3), np.uint8)
    qualities = {
        "alone": quality(begins=None, before=None),
        "taught": quality(),
        "control": quality("detector", curve=[], shown=[]),
    }
    whole = figure(qualities, {"alone": [image], "taught": [image], "control": []})
    precision, recall = whole.subfigs[0].axes
    assert [line.get_ydata().tolist() for line in recall.lines[:2]] == [[10.0, 50.0], [25.0, 75.0]]
    assert precision.lines[1].get_ydata().tolist() == [20.0, 75.0]
    assert [text.get_text() for text in recall.get_legend().get_texts()] == ["alone", "taught"]
    boxes = [len(axes.patches) for axes in whole.subfigs[1].axes]
    assert sum(boxes) == 1 and boxes.index(1) == 2 * (len(boxes) // 4)  # novel, before
    assert precision.get_xlabel() == "epochs"
    figure({"control": qualities["control"]}, {"control": []})  # nothing to draw is no error


def test_the_stage_writes_table_and_figure(tmp_path, monkeypatch):
    write_json(tmp_path / "label_quality.json", quality())
    with ShardWriter(tmp_path / "label_quality.zip") as writer:
        writer.add("00.png", encode_image(np.zeros((16, 16, 3), np.uint8), "png"))
    words = ["x", "--settings", json.dumps({"scale": "miniature", "labels": {"d/e": "taught"}})]
    words += [
        "--rows",
        f"d/e={tmp_path / 'label_quality.json'}",
        "--output",
        str(tmp_path / "t/s_labels.csv"),
    ]
    monkeypatch.setattr("sys.argv", [*words, "--figure", str(tmp_path / "f/s_labels.pdf")])
    label_table.main()
    assert "taught" in (tmp_path / "t/s_labels.csv").read_text()
    assert "miniature (a small" in (tmp_path / "t/s_labels.md").read_text()
    assert {it.name for it in (tmp_path / "f").iterdir()} == {"s_labels.pdf", "s_labels.png"}
    write_json(tmp_path / "label_quality.json", {"curve": []})
    with pytest.raises(InputError, match=r"label_quality\.json: not measures of labels, without beta, det"):
        label_table.main()


# --- jobs -----------------------------------------------------------------------------------------------


def test_labels_are_compared_with_the_truth_in_the_miniature_alone():
    found = {}
    for scale in ("config", "paper"):
        values = read_yaml(ROOT / f"config/{scale}.yaml") | {"studies": ["coco_ovd"], "arms": {}}
        found[scale] = Jobs(load_project(values, source=scale, root=ROOT))
    assert found["paper"].project.measured_labels("coco_ovd") == []
    assert not any("_labels" in file for file in found["paper"].pages("coco_ovd"))
    jobs = LabelJobs(found["config"])
    here = SimpleNamespace(dataset="coco-base", engine="instagen-detector-labels", study="coco_ovd")
    assert "results/miniature/tables/coco_ovd_labels.csv" in found["config"].pages("coco_ovd")
    assert len(jobs.rows(here)) == 5
    place = "results/miniature/engines/coco-base/instagen"
    assert [jobs.fitted(step)(here) for step in ("generator", "head")] == [
        f"{place}/generator/model",
        f"{place}/head/model",
    ]
    assert jobs.detector(here) == (
        "results/miniature/detectors/coco-base/faster-rcnn/real/seed0/weights.safetensors"
    )
    labels = json.loads(jobs.table(here))["settings"]["labels"]
    assert labels["coco-base/instagen"] == "+ fine-tuning"
