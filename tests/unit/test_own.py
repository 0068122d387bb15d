"""`make own`: a scale file written from what the data are; everything is checked before anything is drawn."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import own_annotations
import own_layouts
from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import read_yaml
from gen4det.detection.config_files import learns_masks
from gen4det.evaluation.study_settings import StudySettings
from gen4det.orchestration.costs.__main__ import COSTS, report
from gen4det.orchestration.costs.estimates import Estimator
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.costs.tasks import Task
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.own import ENGINES, Wishes, foreign_names, known_words, prepare, read_names

ROOT = Path(__file__).parents[2]
TABLE = "results/own/tables/own.csv"


def wishes(folder=None, names=(), engines=("mosaicfusion",)) -> Wishes:
    return Wishes(folder, tuple(names), tuple(engines))


def refusal(output, *arguments, **options) -> str:
    with pytest.raises(InputError) as error:
        prepare(wishes(*arguments, **options), output)
    assert "\n" not in str(error.value)
    return str(error.value)


def boxes_alone(data: dict) -> None:
    for it in data["annotations"]:
        del it["segmentation"]


def half_the_masks(data: dict) -> None:
    for it in data["annotations"][::2]:
        del it["segmentation"]


def one_class(data: dict) -> None:
    data["categories"] = data["categories"][:1]
    data["annotations"] = [it for it in data["annotations"] if it["category_id"] == 1]


MATRIX = {
    "masks": (own_layouts.coco, {}, True),
    "boxes only": (own_layouts.coco, {"train": boxes_alone, "val": boxes_alone}, False),
    "masks of some": (own_layouts.coco, {"train": half_the_masks}, False),
    "one class": (own_layouts.coco, {"train": one_class, "val": one_class}, True),
    "one split": (own_layouts.coco_of_one_split, {}, True),
    "voc": (own_layouts.voc, {}, False),
    "yolo boxes": (own_layouts.yolo, {}, False),
    "yolo polygons": (lambda folder: own_layouts.yolo(folder, polygons=True), {}, True),
}


@pytest.mark.parametrize("case", MATRIX)
def test_the_detector_follows_the_data_and_the_rest_of_the_file_holds(case, tmp_path):
    write, changes, masks = MATRIX[case]
    folder = write(tmp_path / "mine", **changes)
    output = tmp_path / "own.yaml"
    project = prepare(wishes(folder), output)
    assert learns_masks(ROOT / project.config.detectors["own"].config) is masks
    assert list(project.studies["own"].trainings) == ["real", "mosaicfusion"]
    assert project.engines["mosaicfusion"].settings.main_rarest == 0.5
    targets = Jobs(project).targets()
    assert "results/own/tables/own.csv" in targets
    assert "results/own/exports/own/mosaicfusion/yolo-merged/export.json" in targets
    printed = report(output)
    assert "photographs         1" in printed and "export              2" in printed


def test_every_engine_of_the_study_can_be_asked_for(tmp_path):
    folder = own_layouts.coco(tmp_path / "mine")
    project = prepare(wishes(folder, engines=ENGINES), tmp_path / "own.yaml")
    assert list(project.studies["own"].trainings) == ["real", *ENGINES]
    rows = read_yaml(ROOT / "config/studies/own.yaml")["arms"]
    assert list(rows) == ["real", *ENGINES]
    assert isinstance(project.studies["own"].table, StudySettings)


def test_names_alone_make_a_file_without_a_table(tmp_path):
    output = tmp_path / "own.yaml"
    project = prepare(wishes(names=[("cup", ""), ('fish: a "big" one', "an animal")]), output)
    assert not project.studies and len(project.config.exports) == 2
    assert project.config.datasets["own"].pairs() == [("cup", ""), ('fish: a "big" one', "an animal")]
    assert all("merged" not in target for target in Jobs(project).targets())
    assert "names               1" in report(output)


def test_unlabelled_photographs_with_names_are_drawn_from_the_names(tmp_path, caplog):
    folder = own_layouts.coco(tmp_path / "mine")
    shutil.rmtree(folder / "annotations")
    said = refusal(tmp_path / "own.yaml", folder)
    assert "images, but no annotation" in said and "source: names" in said
    prepare(wishes(folder, names=[("cup", "")]), tmp_path / "own.yaml")
    assert "18 images without annotations; they are not used" in caplog.text


def test_a_file_that_is_there_is_kept_with_what_was_changed(tmp_path):
    folder, output = own_layouts.coco(tmp_path / "mine"), tmp_path / "own.yaml"
    prepare(wishes(folder), output)
    output.write_text(output.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    assert prepare(wishes(folder), output).config.seeds == (0, 1)
    assert prepare(wishes(), output).config.seeds == (0, 1)
    other = own_layouts.coco(tmp_path / "other")
    assert "delete it, or name another file: OWN=" in refusal(output, other)
    assert "delete it to begin anew from names" in refusal(output, names=[("cup", "")])


def test_bad_annotations_are_refused_before_anything_runs_until_the_file_says_drop(tmp_path, caplog):
    folder, output = own_layouts.coco(tmp_path / "mine"), tmp_path / "own.yaml"
    path = folder / "annotations/instances_train.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["bbox"] = [5, 5, 0, 9]
    path.write_text(json.dumps(data))
    assert "zero area" in (said := refusal(output, folder)) and "on_bad_annotation: drop" in said
    output.write_text(output.read_text().replace("on_bad_annotation: refuse", "on_bad_annotation: drop"))
    prepare(wishes(folder), output)
    assert "left out 1 bad annotations" in caplog.text


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    folder = own_annotations.write(tmp_path / "mine")
    assert "no such folder" in refusal(tmp_path / "own.yaml", tmp_path / "nowhere")
    assert "give DATA=folder" in refusal(tmp_path / "own.yaml")
    assert "give DATA or NAMES, not both" in refusal(tmp_path / "own.yaml", folder, names=[("cup", "")])
    assert "gen2det needs real images" in refusal(
        tmp_path / "a.yaml", names=[("cup", "")], engines=["gen2det"]
    )


def test_too_little_disk_is_said_before_anything_runs(tmp_path, monkeypatch):
    """As large as `make plan` prints, exports with the real images among it."""
    folder = own_layouts.coco(tmp_path / "mine")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=10_000_000))
    said = refusal(tmp_path / "own.yaml", folder)
    assert re.search(r"results/own: about \d+\.\d MB are needed .* 10\.0 MB are free; make room", said)
    monkeypatch.undo()
    prepare(wishes(folder), tmp_path / "own.yaml")


def test_an_export_with_the_real_images_is_planned_with_their_size(tmp_path):
    project = prepare(wishes(own_layouts.coco(tmp_path / "mine")), tmp_path / "own.yaml")
    costs = parse_settings(Costs, read_yaml(COSTS), source=str(COSTS))
    estimator = Estimator(project, costs)
    alone, merged = (
        estimator.of(Task("export", "data", dataset="own", engine="mosaicfusion", merged=it)).stored
        for it in (False, True)
    )
    assert merged - alone > 18 * 96 * 72 * costs.files.jpg_pixel  # 18 images, and their annotations


def test_an_export_of_the_file_comes_after_the_table_that_its_card_quotes(tmp_path):
    jobs = Jobs(prepare(wishes(own_layouts.coco(tmp_path / "mine")), tmp_path / "own.yaml"))
    asked = {"dataset": "own", "engine": "mosaicfusion"}
    assert jobs.quoted_tables(SimpleNamespace(layout="yolo-merged", **asked)) == [
        "results/own/tables/own.csv"
    ]
    assert jobs.quoted_tables(SimpleNamespace(layout="voc", **asked)) == []  # on the command line alone


def test_an_engine_that_does_not_suit_the_data_is_named_in_one_line(tmp_path):
    folder = own_layouts.coco(tmp_path / "mine")
    engines = [name for name in ENGINES if name != "mosaicfusion"]
    for engine in engines:
        said = refusal(tmp_path / f"{engine}.yaml", names=[("cup", "")], engines=[engine])
        assert f"{engine} needs real images" in said
    output = tmp_path / "own.yaml"
    prepare(wishes(folder, engines=["detdiffusion"]), output)
    output.write_text(output.read_text().replace("{min_objects: 1}", "{min_objects: 3}"))
    said = refusal(output, folder, engines=["detdiffusion"])
    assert "detdiffusion-hard does not suit these data: no training image has 3 to 8 objects" in said


def test_names_come_from_a_text_or_a_file(tmp_path):
    assert read_names("cup, sea fish") == (("cup", ""), ("sea fish", ""))
    (tmp_path / "names.txt").write_text("cup: for tea\n\nsea fish\n")
    assert read_names(str(tmp_path / "names.txt")) == (("cup", "for tea"), ("sea fish", ""))
    assert read_names(" ") == ()


def test_names_that_the_model_does_not_know_are_told(tmp_path):
    project = prepare(wishes(names=[("cup", ""), ("erythrocyte", "")]), tmp_path / "own.yaml")
    (line,) = foreign_names(project, ["cup", "cap_(headwear)", "erythrocyte"])
    assert line.startswith(
        "1 of 3 names have words that resources/miniature/stable-diffusion does not know whole"
    )
    assert "'erythrocyte'" in line
    assert foreign_names(project, ["cup"]) == []
    assert known_words(tmp_path) is None


def test_the_file_is_commented_and_plain_yaml(tmp_path):
    prepare(wishes(own_layouts.coco(tmp_path / "mine")), tmp_path / "own.yaml")
    text = (tmp_path / "own.yaml").read_text()
    assert text.count("#") > 15 and yaml.safe_load(text)["scale"] == "own"
