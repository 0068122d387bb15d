"""Fidelity of synthetic sets: layout by attribute, names by CLIP, Frechet distance, the table and its
jobs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_detector import tiny_dataset

from gen4det.core.errors import InputError
from gen4det.core.provenance import PACKAGE_ROOT, write_json
from gen4det.core.yaml_files import read_yaml
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.label_tables import write_table
from gen4det.data.shards import archive_digest, shard_identity
from gen4det.evaluation import fidelity_table
from gen4det.evaluation.encoders import load_classifier, load_encoder
from gen4det.evaluation.fidelity_settings import FeatureSettings
from gen4det.evaluation.inception import Inception, load_inception
from gen4det.evaluation.layout_page import DrawnSet, layout_page
from gen4det.evaluation.measures.fidelity import asked_for, layout_fidelity, named_rightly
from gen4det.evaluation.measures.layout import layout_average_precision
from gen4det.filters.clip_naming import Namer, crop
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.renderer import render_scene
from gen4det.orchestration.fidelity_jobs import FidelityJobs
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project
from gen4det.stages import fidelity
from gen4det.stages import layout_page as layout_page_stage
from gen4det.stages.fidelity import detections_of

ROOT = PACKAGE_ROOT.parent
CLIP, BACKBONE = ROOT / "resources/miniature/clip", ROOT / "resources/miniature/backbone"
BOXES = [[10, 10, 30, 30], [50, 50, 40, 40], [5, 60, 30, 30]]


def shard(attributes=("easy", "hard", "hard")):
    """One image with three objects, the last of which a filter of the engine rejected, and a real one."""
    labels = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(BOXES)]
    real = {"id": 9, "image_id": 1, "category_id": 2, "bbox": [60, 5, 20, 20], "real": True}
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 100, "height": 100, "attributes": list(attributes)}
        ],
        "annotations": [*labels[:2]],
        "rejected": [{**labels[2], "reason": "too dark"}, real],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "fish"}],
    }


# --- layout -----------------------------------------------------------------------------------------


def test_all_that_was_asked_for_counts_and_real_objects_around_it_do_not():
    asked = asked_for([shard()])
    assert [it["attribute"] for it in asked["annotations"]] == ["easy", "hard", "hard", None]
    assert [it["drawn"] for it in asked["annotations"]] == [True, True, True, False]
    perfect = {"1": [[1, 0.9, *box] for box in BOXES] + [[2, 0.99, 60, 5, 20, 20]]}
    found = layout_fidelity(asked, perfect)
    assert found["all"]["AP"] == pytest.approx(100) and found["all"]["objects"] == 3
    assert found["easy"]["objects"] == 1 and found["hard"]["objects"] == 2


def test_layouts_are_measured_by_attribute_and_the_others_are_neither_missed_nor_wrong():
    asked = asked_for([shard()])
    only_easy = {"1": [[1, 0.9, *BOXES[0]]]}
    found = layout_fidelity(asked, only_easy)
    assert found["easy"]["AP"] == pytest.approx(100) and found["easy"]["found"] == 100
    assert found["hard"]["AP"] == 0 and found["hard"]["found"] == 0
    assert found["all"]["found"] == pytest.approx(100 / 3) and 0 < found["all"]["AP"] < 50
    unsure = layout_fidelity(asked, {"1": [[1, 0.4, *BOXES[0]], [2, 0.9, *BOXES[1]]]})
    assert unsure["all"]["found"] == 0  # not sure enough, of another category
    assert set(layout_fidelity(asked_for([shard(())]), only_easy)) == {"all"}


def test_ignored_labels_are_to_the_evaluator_what_crowds_are():
    asked = asked_for([shard()])
    detections = {"1": [[1, 0.9, *BOXES[1]], [1, 0.8, *BOXES[0]]]}
    ignoring = layout_average_precision(asked, detections, ignored={2, 3, 4})
    assert ignoring["AP"] == pytest.approx(100)
    crowds = json.loads(json.dumps(asked))
    for label in crowds["annotations"][1:]:
        label["iscrowd"] = 1
    assert layout_average_precision(crowds, detections) == ignoring


def test_names_are_counted_by_attribute():
    asked = asked_for([shard()])
    assert named_rightly(asked, {1: True, 2: False, 3: True, 4: False}) == {
        "all": pytest.approx(200 / 3), "easy": 100, "hard": 50,
    }  # fmt: skip
    assert named_rightly(asked, {2: True}) == {"all": 100, "easy": None, "hard": 100}


# --- CLIP -------------------------------------------------------------------------------------------


def test_clip_calls_rendered_objects_by_their_names_far_more_often_than_chance():
    chosen = CATEGORIES[:8]
    namer = Namer(str(CLIP), None, [it.name for it in CATEGORIES])
    crops = []
    for number, category in enumerate(chosen):
        scene = render_scene(number, [category], 64, (40, 50))
        crops.append(crop(scene.image, scene.objects[0].box))
    right = sum(place == number for number, place in enumerate(namer.nearest(crops)))
    assert right >= 3  # chance: a third of one
    assert crop(np.zeros((20, 20, 3), np.uint8), [15.5, 3, 4, 9]) is None
    with pytest.raises(InputError, match="cannot be loaded"):
        Namer(str(BACKBONE), None, ["cup"])


# --- features ---------------------------------------------------------------------------------------


def test_the_inception_network_has_the_published_number_of_parameters_and_features(tmp_path):
    with torch.device("meta"):
        model = Inception().eval()
        assert model(torch.zeros(2, 3, 299, 299)).shape == (2, 2048)
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_785_568
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no weights of FID's Inception network"):
        load_inception(tmp_path / "other.pth")
    with pytest.raises(InputError, match="0 files"):
        load_encoder(FeatureSettings(kind="inception", model={"path": str(tmp_path / "nothing")}))


def test_the_classifiers_features_are_those_of_its_own_network_whatever_the_batch():
    encoder, about = load_encoder(FeatureSettings(kind="classifier", model={"path": str(BACKBONE)}))
    images = [np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8) for seed in range(3)]
    together = encoder(images)
    assert together.shape == (3, 96) and about["network"] == "classifier"
    np.testing.assert_allclose(together[1], encoder([images[1]])[0], atol=1e-4)
    network = load_classifier(BACKBONE / "model.safetensors")
    pixels = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    np.testing.assert_allclose(together[0], network(pixels)[0].numpy(), atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(8, 3, 7, 7)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors: cannot be loaded"):
        load_classifier(tmp_path / "model.safetensors")


# --- the stage --------------------------------------------------------------------------------------


def write_set(folder, dataset, images: int = 5):
    """A shard of real-looking images with labels, and what a perfect detector finds in it."""
    folder.mkdir()
    real = dataset.train.load()
    found, records, labels = {}, [], []
    with ShardWriter(folder / "00000.zip") as writer:
        for image in real["images"][:images]:
            pixels = dataset.train.images.image(image["file_name"])
            name = f"{image['id']}.png"
            writer.add(name, encode_image(pixels, "png"))
            members = [it for it in real["annotations"] if it["image_id"] == image["id"]]
            attributes = ["easy"] * len(members)
            more = {
                "file_name": f"00000.zip/{name}",
                "attributes": attributes,
                "reference_image_id": image["id"],
            }
            records.append({**image, **more})
            labels += members
            found[str(image["id"])] = [[it["category_id"], 0.9, *it["bbox"]] for it in members]
    info = {
        "shard": 0,
        "shards": 1,
        "run": "r",
        "archive": "00000.zip",
        "digest": archive_digest(folder / "00000.zip"),
    }
    data = {
        "info": info,
        "images": records,
        "annotations": labels,
        "rejected": [],
        "categories": real["categories"],
    }
    write_table(folder / "00000.arrow", data)
    detections = {"of": shard_identity(data), "split": dataset.train.hash, "detections": found}
    write_json(folder / "found.json", detections)
    return data, detections


def test_the_stage_measures_a_set_and_says_why_a_distance_is_missing(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    dataset = tiny_dataset(tmp_path / "data")
    data, detections = write_set(tmp_path / "set", dataset)
    settings = {
        "features": {"kind": "classifier", "model": {"path": str(BACKBONE)}},
        "clip": {"path": str(CLIP)},
    }
    output = tmp_path / "fidelity.json"
    command = ["fidelity", "--settings", json.dumps({"settings": settings}), "--dataset", str(dataset.path)]
    command += [
        "--shards",
        str(tmp_path / "set/00000.arrow"),
        "--detections",
        str(tmp_path / "set/found.json"),
    ]
    monkeypatch.setattr("sys.argv", [*command, "--output", str(output)])
    fidelity.main()
    result = json.loads(output.read_text())
    assert result["layout"]["all"]["AP"] == pytest.approx(100) and result["layout"]["easy"]["found"] == 100
    assert result["frechet"] is None and "images for features of 96 numbers" in result["frechet_missing"]
    assert result["frechet_of"]["drawn"] == 5 and 0 <= result["named"]["all"] <= 100
    with pytest.raises(InputError, match="of other images"):
        write_json(tmp_path / "other.json", detections | {"of": {"shard": 1}})
        detections_of([data], [str(tmp_path / "other.json")], training_hash=dataset.train.hash)
    with pytest.raises(InputError, match="another training split"):
        detections_of([data], [str(tmp_path / "set/found.json")], training_hash="other")
    drawn = DrawnSet("mine", dataset.train.images, data | {"images": [
        {**it, "file_name": it["file_name"].partition("/")[2].zfill(10)} for it in data["images"]
    ]}, detections["detections"])  # fmt: skip
    page = layout_page(dataset.train.load(), dataset.train.images, [drawn, drawn])
    assert len(page.axes) == 5 * 3


def test_the_page_of_layouts_takes_engines_of_different_numbers_of_shards(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    dataset = tiny_dataset(tmp_path / "data")
    for name in "abc":
        write_set(tmp_path / name, dataset)
    places = [str(tmp_path / name) for name in "abc"]
    output = tmp_path / "layouts.pdf"
    command = ["layout_page", "--dataset", str(dataset.path), "--output", str(output), "--shards"]
    command += [f"{place}/00000.arrow" for place in places]
    command += ["--detections", *(f"{place}/found.json" for place in places), "--settings"]
    for shards in ((2, 2), (3,)):
        settings = {"engines": ["easy", "hard"], "shards": shards}
        monkeypatch.setattr("sys.argv", [*command, json.dumps(settings)])
        with pytest.raises(
            InputError, match="3 shards and 3 files of detections; expected .* for easy, hard"
        ):
            layout_page_stage.main()
    monkeypatch.setattr("sys.argv", [*command, json.dumps({"engines": ["easy", "hard"], "shards": [1, 2]})])
    layout_page_stage.main()
    assert output.is_file() and output.with_suffix(".png").is_file()


# --- table ------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_set_the_ceiling_first_and_published_numbers_beside(tmp_path):
    layout = {"AP": 30.0, "AP50": 50.0, "AP75": 20.0, "APs": 1.0, "APm": 2.0, "APl": None, "found": 40.0}
    measured = {"agreement": None, "rejected": 12.5, "seconds_per_image": 0.25}
    (tmp_path / "set").mkdir()
    write_json(tmp_path / "set/fidelity.json", {
        "layout": {"all": layout, "easy": layout | {"AP": 44.0}}, "named": {"all": 70.0, "easy": 80.0},
        "frechet": None, "frechet_missing": "too few", "frechet_of": {"drawn": 7},
    })  # fmt: skip
    write_json(tmp_path / "set/measures.json", {"set": measured})
    write_json(tmp_path / "metrics.json", {"box": {"AP": 60.0, "APs": 10.0}, "mask": None})
    published = {"detdiffusion": {"source": "a paper", "frechet": 19.28}}
    rows = [
        fidelity_table.read_row("coco/real", tmp_path / "metrics.json", published),
        fidelity_table.read_row("coco/detdiffusion", tmp_path / "set", published),
    ]
    lines = fidelity_table.to_csv(rows, "miniature").splitlines()
    header, real, drawn = (line.split(",") for line in lines)
    assert dict(zip(header, real, strict=True))["AP"] == "60.0000"
    values = dict(zip(header, drawn, strict=True))
    assert values["AP_easy"] == "44.0000" and values["AP_hard"] == "" and values["frechet"] == ""
    assert values["frechet_published"] == "19.2800" and values["note"] == "too few"
    text = fidelity_table.to_markdown(rows, "miniature")
    assert "too few" in text and "frechet 19.28 (a paper)" in text and "layout AP, hard" not in text
    assert len(fidelity_table.figure(rows).axes) == 2


# --- jobs -------------------------------------------------------------------------------------------


def jobs_of(**changes) -> FidelityJobs:
    values = read_yaml(ROOT / "config/config.yaml") | {"studies": ["detdiffusion_trainability"]} | changes
    return FidelityJobs(Jobs(load_project(values, source="config/config.yaml", root=ROOT)))


def test_every_set_of_the_run_has_a_row_and_the_ceiling_stands_first():
    rows = [row.partition("=")[0] for row in jobs_of().rows(None)]
    assert rows[0] == "coco/real" and "coco/detdiffusion-hard" in rows and "coco/geodiffusion" in rows
    asked = jobs_of().detections(SimpleNamespace(dataset="coco", engine="geodiffusion"))
    assert asked[0].endswith("synthetic/coco/geodiffusion/detections/faster-rcnn/seed0/00000.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detectors": {"cocoo": "faster-rcnn"}}, "fidelity.detectors: no such data set 'cocoo'"),
        ({"detectors": {"coco": "faster"}}, "fidelity.detectors.coco: no such detector 'faster'"),
        ({"side_by_side": {"coco": ["detdifusion"]}}, "fidelity: no such engine 'detdifusion'"),
        ({"published": {"dalle": {"frechet": 1.0}}}, "fidelity: no such engine 'dalle'"),
    ],
)
def test_what_the_section_names_must_be_there(change, message):
    given = read_yaml(ROOT / "config/config.yaml")["fidelity"]
    with pytest.raises(InputError, match=message):
        jobs_of(fidelity=given | change)


def test_a_study_with_rows_of_all_engines_of_a_page_makes_it():
    """The same layouts drawn easy and hard stand beside each other wherever a study trains on both."""
    page, study = "results/miniature/figures/layouts_coco.pdf", "detdiffusion_trainability"
    jobs = jobs_of(engine_shards={"detdiffusion-hard": 3})
    assert page in jobs.jobs.targets()
    asked = SimpleNamespace(dataset="coco")
    settings = json.loads(jobs.page(asked))["settings"]
    assert settings == {"engines": ["detdiffusion-easy", "detdiffusion-hard"], "shards": [2, 3]}
    assert len(jobs.page_sets(asked)) == len(jobs.page_detections(asked)) == 5
    some = jobs_of(arms={study: ["real", "detdiffusion-hard"]})
    assert f"results/miniature/figures/{study}.pdf" in some.jobs.targets()
    assert page not in some.jobs.targets()
