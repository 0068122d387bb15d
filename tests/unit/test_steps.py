"""Promise: a method declares its steps; what a job reads, who shares it, where it lies follow from that."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar, Literal

import pytest

import stripes_engine
from gen4det.core.errors import InputError
from gen4det.core.yaml_files import read_yaml
from gen4det.engines import base
from gen4det.engines.settings import AskedDetector, EngineSettings
from gen4det.engines.steps import Detections, Step, Steps, settings_of_step
from gen4det.orchestration import synthetic_jobs
from gen4det.orchestration.costs.tasks import jobs_by_rule, tasks
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]
FIELDS = {"method", "image_format", "a", "b"}
DRAW = Step("images", "draw")


def steps(*declared: Step) -> Steps:
    return Steps(declared, FIELDS, {"method"})


# --- declarations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ((Step("fit", "fit"),), "0 steps of kind 'draw'; expected one"),
        ((DRAW, Step("more", "draw")), "2 steps of kind 'draw'; expected one"),
        ((DRAW, DRAW), "'images' is declared twice"),
        ((Step("head", "fit", reads=("images",)), DRAW), "'head' reads 'images'; the steps before it: none"),
        ((DRAW, Step("labels", "label", reads=("haed",))), "reads 'haed'; the steps before it: images"),
        ((DRAW, Step("head", "fit", settings=("c",))), "'head': the settings have no field 'c'"),
        ((Step("images", "draw", settings=("a",)),), "no step reads b"),
        ((DRAW, Step("l", "fit", detections=(Detections("pictures", "a"),))), "reads 'pictures'"),
    ],
)
def test_steps_that_contradict_themselves_are_refused(declared, message):
    with pytest.raises(ValueError, match=message):
        steps(*declared)


def test_a_step_that_reads_itself_is_refused():
    with pytest.raises(ValueError, match="'head' reads itself"):
        Step("head", "fit", reads=("head",))


def test_a_step_reads_its_own_fields_and_the_rest_goes_to_who_names_none():
    found = steps(DRAW, Step("head", "fit", reads=("images",), settings=("b",)))
    assert found.fields(found["images"]) == {"method", "image_format", "a"}
    assert found.fields(found["head"]) == {"method", "b"}
    assert [step.name for step in found.upstream(found["head"])] == ["images", "head"]
    assert [step.name for step in found.upstream(found["images"])] == ["images"]


def test_a_field_of_another_step_is_out_of_reach():
    """What a job could read without it being in its hash would be a result that does not run again."""
    declared = stripes_engine.Settings.checked_steps()
    kept = settings_of_step(stripes_engine.Settings, declared.fields(declared["gauge"]))
    settings = kept(gauge={"scale": 2})
    assert settings.gauge.scale == 2 and settings.method == "stripes"
    with pytest.raises(AttributeError):
        settings.labels  # noqa: B018
    with pytest.raises(ValueError, match="Extra inputs"):
        kept(labels={"least": 3})


def test_a_single_step_reads_the_settings_whole():
    model = base.settings_class("mosaicfusion")
    declared = model.checked_steps()
    assert settings_of_step(model, declared.fields(declared.draw)) is model


def test_what_a_step_reads_must_be_given():
    step = Step("head", "fit", reads=("generator",), detections=(Detections("dataset", "judge"),))
    asking = SimpleNamespace(judge="somebody")
    with pytest.raises(InputError, match="reads what step 'generator' made: give --reads generator=PATH"):
        base.check_inputs(step, asking, base.Inputs(None))
    inputs = base.Inputs(None, models={"generator": Path("model")})
    with pytest.raises(InputError, match="give --reads detections.dataset=FILE"):
        base.check_inputs(step, asking, inputs)
    base.check_inputs(step, SimpleNamespace(judge=None), inputs)  # asks nobody


# --- what follows from them -----------------------------------------------------------------------------


@pytest.fixture
def stripes(monkeypatch):
    """The method "stripes" of the tests, known to this process; its modules have the code of this package."""
    package = ModuleType("gen4det.engines.stripes")
    settings = ModuleType("gen4det.engines.stripes.settings")
    settings.Settings = stripes_engine.Settings
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    known = base.known_methods
    monkeypatch.setattr(base, "known_methods", lambda: [*known(), "stripes"])
    module = base.engine_module

    def existing(method: str, part: str) -> str:
        is_code = method == "stripes" and part != "settings"
        return {"draw": "gen4det.data.images", "plan": "gen4det.data.manifests"}.get(
            part, "gen4det.data.shards"
        ) if is_code else module(method, part)  # fmt: skip

    monkeypatch.setattr(synthetic_jobs, "engine_module", existing)


VARIANTS = {
    "stripes": {"method": "stripes", "judge": {"detector": "mask-rcnn"}},
    "other-head": {"base": "stripes", "gauge": {"scale": 2.0}},
    "other-labels": {"base": "other-head", "labels": {"least": 4}},
    "other-images": {"base": "stripes", "images": 8},
    "other-palette": {"base": "stripes", "palette": {"steps": 5}},
    "other-filter": {"base": "other-labels", "filter": {"min_score": {"gauge": 0.5}}},
}


def project(tmp_path: Path, variants: dict, **changes) -> Jobs:
    """The miniature with these variants of the test engine, all in one study."""
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    for name in ("config", "resources", "workflow"):
        if not (root / name).exists():
            (root / name).symlink_to(ROOT / name) if name != "config" else (root / name).mkdir()
    for folder in ("detectors", "engines", "studies"):
        (root / "config" / folder).mkdir(exist_ok=True)
    for file in (ROOT / "config/detectors").glob("*.py"):
        (root / "config/detectors" / file.name).write_text(file.read_text())
    for file in (ROOT / "config/engines").glob("*.yaml"):
        (root / "config/engines" / file.name).write_text(file.read_text())
    (root / "config/engines/stripes.yaml").write_text(json.dumps(variants))
    study = read_yaml(ROOT / "config/studies/lvis_rare.yaml")
    study["arms"] = {"real": {}} | {name: {"synthetic": [name]} for name in variants}
    study["published"] = {}
    (root / "config/studies/lvis_rare.yaml").write_text(json.dumps(study))
    values = read_yaml(ROOT / "config/config.yaml") | {"engines": {}, "arms": {}} | changes
    return Jobs(load_project(values, source="config.yaml", root=root))


def test_variants_share_the_steps_that_are_equal_with_all_they_read(stripes, tmp_path):
    found = project(tmp_path, VARIANTS).project.engines
    owners = {name: list(variant.owner.values()) for name, variant in found.items()}
    assert owners == {
        "stripes": ["stripes"] * 4,
        "other-head": ["stripes", "stripes", "other-head", "other-head"],  # a changed head draws nothing
        "other-labels": ["stripes", "stripes", "other-head", "other-labels"],  # nor fits other labels again
        "other-images": ["stripes", "other-images", "other-images", "other-images"],  # fits no generator
        "other-palette": ["other-palette"] * 4,
        "other-filter": ["stripes", "stripes", "other-head", "other-labels"],  # a threshold labels nothing
    }


def test_paths_and_inputs_follow_from_the_owners(stripes, tmp_path):
    jobs = project(tmp_path, VARIANTS)
    words = SimpleNamespace(dataset="lvis", engine="other-labels", step="gauge", shard="00001")
    place = "results/miniature"
    assert jobs.reads("fit")(words) == [
        f"{place}/synthetic/lvis/stripes/shards/00000.arrow",
        f"{place}/synthetic/lvis/stripes/shards/00001.arrow",
        f"{place}/data/lvis/detections/mask-rcnn/seed0/train.json",
    ]
    assert jobs.read_names("label")(words) == [f"gauge={place}/engines/lvis/other-head/gauge/model"]
    assert jobs.reads("draw")(words) == [f"{place}/engines/lvis/stripes/palette/model"]
    assert jobs.drawn("zip")(words) == f"{place}/synthetic/lvis/stripes/shards/00001.zip"
    assert jobs.labels(words)[0] == f"{place}/synthetic/lvis/other-labels/labels/00000.arrow"
    words.engine = "other-filter"
    assert jobs.labels(words)[0] == f"{place}/synthetic/lvis/other-labels/labels/00000.arrow"


KINDS = ("fit palette", "plan", "generate", "fit gauge", "label")


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        ({"palette": {"steps": 9}}, {"fit palette"}),
        ({"images": 9}, {"plan", "generate"}),
        ({"image_format": "jpg"}, {"plan", "generate"}),
        ({"gauge": {"scale": 9.0}}, {"fit gauge"}),
        ({"judge": {"detector": "mask-rcnn", "seed": 1}}, {"fit gauge"}),
        ({"labels": {"least": 9}}, {"label"}),
        ({"filter": {"min_score": {"gauge": 0.9}}}, set()),
    ],
)
def test_a_setting_is_in_the_jobs_of_its_step_alone(stripes, tmp_path, change, affected):
    """Jobs of later steps run again because their inputs do."""
    jobs = [project(tmp_path, {"stripes": VARIANTS["stripes"] | more}) for more in ({}, change)]
    for kind in KINDS:
        name, _, step = kind.partition(" ")
        words = SimpleNamespace(dataset="lvis", engine="stripes", step=step)
        before, after = (getattr(it, name)(words) for it in jobs)
        assert (before != after) == (kind in affected), kind


def test_the_code_of_a_step_is_that_of_its_module(stripes, tmp_path):
    jobs = project(tmp_path, VARIANTS)
    words = SimpleNamespace(dataset="lvis", engine="stripes", step="gauge")
    codes = [json.loads(getattr(jobs, kind)(words))["code"] for kind in ("fit", "plan", "generate", "label")]
    assert len(set(codes)) == 4


def test_every_step_is_counted_once_for_all_that_share_it(stripes, tmp_path):
    jobs = project(tmp_path, VARIANTS)
    counted = jobs_by_rule(tasks(jobs.project))
    shards = jobs.config.shards
    assert counted["fit"] == 2 + 4  # palettes of two variants, gauges of four
    assert counted["plan"] == 3 and counted["generate"] == 3 * shards
    assert counted["label"] == 5 * shards and counted["filter"] == len(VARIANTS)
    assert counted["fit_curve"] == 4  # the gauges; palettes have no losses
    assert counted["detect_real"] == 1  # one detector, asked by all


def test_a_detector_that_a_step_asks_must_exist(stripes, tmp_path):
    variants = {"stripes": {"method": "stripes", "judge": {"detector": "mask-rnn"}}}
    with pytest.raises(InputError, match="stripes.judge.detector: 'mask-rnn' is not a detector.*'mask-rcnn'"):
        project(tmp_path, variants)


def test_contradicting_steps_of_a_method_are_one_line(monkeypatch):
    class Settings(EngineSettings):
        """Reads a step that is not there."""

        steps: ClassVar[tuple[Step, ...]] = (Step("images", "draw", reads=("nothing",)),)
        method: Literal["odd"] = "odd"
        judge: AskedDetector | None = None

    module = ModuleType("gen4det.engines.odd.settings")
    module.Settings = Settings
    monkeypatch.setitem(sys.modules, "gen4det.engines.odd", ModuleType("gen4det.engines.odd"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(base, "known_methods", lambda: ["odd"])
    with pytest.raises(InputError, match="step 'images' reads 'nothing'; the steps before it: none"):
        base.settings_class("odd")
