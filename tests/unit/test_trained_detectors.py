"""Steps that read the weights of a detector of real images; rows of a study with a detector of their own."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from gen4det.core.errors import InputError
from gen4det.core.yaml_files import merge, read_yaml
from gen4det.engines import base
from gen4det.engines.base import Inputs
from gen4det.orchestration.costs.tasks import jobs_by_rule, tasks
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project
from gen4det.stages._engine import hash_of, step_inputs, step_job

ROOT = Path(__file__).parents[2]
SCALE = read_yaml(ROOT / "config/config.yaml")
PLACE = "results/miniature/detectors"


def jobs(**changes) -> Jobs:
    return Jobs(load_project(merge(SCALE, changes), source="config.yaml", root=ROOT))


def words(engine: str, dataset: str) -> SimpleNamespace:
    return SimpleNamespace(dataset=dataset, engine=engine, shard="00000")


def test_a_step_reads_the_weights_of_the_arm_real():
    found = jobs(studies=["coco_scaling"])
    weights = f"{PLACE}/coco/adapter/real/seed0/weights.safetensors"
    assert found.reads("draw")(words("diffusionengine", "coco")) == [weights]
    assert found.read_names("draw")(words("diffusionengine", "coco")) == [f"detectors.adapter={weights}"]


def test_of_another_data_set_where_the_settings_name_one():
    """An adapter of COCO labels for VOC ("remapped"), one of VOC for VOC ("target")."""
    found = jobs(studies=["voc_de"])
    remapped = found.reads("draw")(words("diffusionengine-coco-2", "voc-sparse"))
    target = found.reads("draw")(words("diffusionengine-8", "voc-sparse"))
    assert remapped == [f"{PLACE}/coco/adapter/real/seed0/weights.safetensors"]
    assert target == [f"{PLACE}/voc-sparse/adapter/real/seed0/weights.safetensors"]
    assert {("coco", "adapter", "real"), ("voc", "adapter", "real")} <= found.project.arms.keys()


def test_a_detector_that_no_table_shows_is_trained_and_counted_all_the_same():
    found = jobs(studies=["lvis_rare"], arms={"lvis_rare": ["real", "diffusionengine"]})
    training = found.project.arms["lvis", "adapter", "real"]
    assert training.real and not training.synthetic
    assert jobs_by_rule(tasks(found.project))["train"] == 3  # two rows and the adapter


def test_its_seed_and_name_are_settings_of_the_drawing():
    def drawn(**changes):
        found = jobs(studies=["coco_scaling"], engines={"diffusionengine": {"adapter": changes}})
        it = words("diffusionengine", "coco")
        return found.generate(it), found.reads("draw")(it)

    (plain, weights), (other, others) = drawn(detector="adapter"), drawn(detector="adapter", seed=3)
    assert plain != other and weights != others and "seed3" in others[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"detector": "adaptor"},
            "diffusionengine.adapter.detector: 'adaptor' is not a detector of .*'adapter'",
        ),
        (
            {"detector": "adapter", "dataset": "cocoa"},
            "adapter.dataset: 'cocoa' is not a data set of .*'coco'",
        ),
    ],
)
def test_a_detector_or_data_set_that_is_not_there_is_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        jobs(studies=["coco_scaling"], engines={"diffusionengine": {"adapter": changes}})


def test_the_stages_ask_for_the_weights_and_hash_them(tmp_path):
    engine = {"method": "diffusionengine"}
    args = argparse.Namespace(settings={"settings": {"engine": engine}}, reads=[])
    job = step_job(args, "draw")
    with pytest.raises(InputError, match="reads a detector: give --reads detectors.adapter=FILE"):
        step_inputs(args, job, None)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"1")
    args.reads = [f"detectors.adapter={weights}"]
    inputs = step_inputs(args, job, None)
    assert inputs.detectors == {"adapter": weights}
    before = hash_of(inputs)
    weights.write_bytes(b"2")
    assert before.keys() == {"detectors.adapter"} and hash_of(inputs) != before
    args.reads = [f"detectors.adaptor={weights}"]
    with pytest.raises(InputError, match="does not read it.*detectors.adapter"):
        step_inputs(args, job, None)


def test_a_step_without_its_detector_does_not_begin():
    declared = base.settings_class("diffusionengine").checked_steps()
    settings = base.engine_settings("diffusionengine", {"method": "diffusionengine"}, source="x")
    with pytest.raises(InputError, match="step 'images' reads a detector"):
        base.check_inputs(declared.draw, settings, Inputs(None))


# --- rows with a detector of their own ----------------------------------------------------------------


def test_a_row_is_compared_with_the_row_of_its_detector():
    study = jobs(studies=["coco_scaling"]).project.studies["coco_scaling"]
    compared = {row: study.table.baseline_of(row) for row in study.trainings}
    assert compared["diffusionengine"] == compared["repeated"] == compared["adapter"] == "real"
    assert compared["retinanet-diffusionengine"] == "retinanet-real"
    assert compared["dino-repeated"] == "dino-real"
    keys = {row: training.key for row, training in study.trainings.items()}
    assert keys["retinanet-real"] == ("coco", "retinanet", "real") != keys["real"]
    assert keys["adapter"] == ("coco", "adapter", "real")


def test_what_a_table_calls_the_adapter_is_what_engines_read():
    found = jobs(studies=["coco_scaling"])
    row = found.project.studies["coco_scaling"].trainings["adapter"]
    (read, seed) = next(found.project.read_by_steps())
    assert read.key == row.key and seed == 0
    assert read.settings.model_dump() == row.settings.model_dump()


def test_a_detector_of_a_row_that_is_not_there_is_one_line(tmp_path):
    root = tmp_path / "root"
    (root / "config/studies").mkdir(parents=True)
    for name in ("engines", "detectors"):
        (root / "config" / name).symlink_to(ROOT / "config" / name)
    study = read_yaml(ROOT / "config/studies/coco_scaling.yaml")
    study["arms"]["dino-real"]["detector"] = "dyno"
    (root / "config/studies/coco_scaling.yaml").write_text(json.dumps(study))
    message = "coco_scaling.yaml: arms.dino-real.detector: 'dyno' is not a detector of config.yaml.*'dino'"
    with pytest.raises(InputError, match=message):
        load_project(SCALE | {"studies": ["coco_scaling"]}, source="config.yaml", root=root)
