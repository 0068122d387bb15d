"""The configuration: references resolve, variants inherit, and mistakes are one line that names its place."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import merge, read_yaml
from gen4det.orchestration import settings_docs as reference
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.project import Project, load_project
from gen4det.orchestration.scale import Config

ROOT = Path(__file__).parents[2]
SCALES = ("config.yaml", "paper.yaml", "photographs.yaml")

SCALE = {
    "scale": "test",
    "results": "results/test",
    "studies": ["rare"],
    "foundation": {"diffusion": {"path": "resources/miniature/stable-diffusion"}},
    "datasets": {"lvis": {"source": "miniature"}},
    "detectors": {"mask-rcnn": {"config": "config/detectors/mask_rcnn.py"}},
}
ENGINES = {
    "mosaicfusion": {"method": "mosaicfusion", "images_per_category": 25},
    "mosaicfusion-strict": {"base": "mosaicfusion", "filter": {"min_area_fraction": 0.1}},
    "mosaicfusion-small": {"base": "mosaicfusion", "objects": [1]},
}
STUDY = {
    "title": "Rare categories",
    "dataset": "lvis",
    "detector": "mask-rcnn",
    "arms": {"real": {}, "mosaicfusion": {"synthetic": ["mosaicfusion"]}},
    "metrics": ["mask_APr"],
}


@pytest.fixture
def project(tmp_path):
    """Writes a small project, with changes, and loads it."""

    def load(scale: dict | None = None, engines: dict | None = None, **studies: dict) -> Project:
        for folder in ("engines", "studies"):
            shutil.rmtree(tmp_path / "config" / folder, ignore_errors=True)
            (tmp_path / "config" / folder).mkdir(parents=True)
        (tmp_path / "config/engines/all.yaml").write_text(yaml.safe_dump(merge(ENGINES, engines or {})))
        (tmp_path / "config/detectors").mkdir(exist_ok=True)
        (tmp_path / "config/detectors/mask_rcnn.py").write_text("model = dict()")
        for name, changes in {"rare": {}, **studies}.items():
            path = tmp_path / "config/studies" / f"{name}.yaml"
            path.write_text(yaml.safe_dump(merge(STUDY, changes), sort_keys=False))
        return load_project(merge(SCALE, scale or {}), source="config.yaml", root=tmp_path)

    return load


@pytest.fixture
def refusal(project):
    """The one line a bad project is refused with."""

    def message(*arguments, **studies) -> str:
        with pytest.raises(InputError) as error:
            project(*arguments, **studies)
        assert "\n" not in str(error.value)
        return str(error.value)

    return message


@pytest.mark.parametrize("name", SCALES)
def test_every_shipped_scale_is_valid(name):
    project = load_project(read_yaml(ROOT / "config" / name), source=name, root=ROOT)
    assert project.studies.keys() == set(project.config.studies)


def test_a_scale_can_leave_rows_of_a_study_out(project, refusal):
    published = {"source": "a paper", "mosaicfusion": {"mask_AP": 1.0}}
    rare = {"published": published}
    assert list(project(rare=rare).studies["rare"].trainings) == ["real", "mosaicfusion"]
    study = project({"arms": {"rare": ["real"]}}, rare=rare).studies["rare"]
    assert list(study.trainings) == ["real"] and study.table.published.keys() == {"source"}
    assert list(project({"arms": {"rare": []}}, rare=rare).studies["rare"].trainings) == [
        "real",
        "mosaicfusion",
    ]
    text = refusal({"arms": {"rare": ["mosaic"]}})
    assert text.startswith("config.yaml: arms.rare: no row 'mosaic' at this scale in ")
    assert text.endswith("rare.yaml; did you mean 'mosaicfusion'?")


def test_shipped_scales_share_no_results():
    folders = [Path(read_yaml(ROOT / "config" / name)["results"]) for name in SCALES]
    assert len(set(folders)) == len(folders)


def test_bad_input_is_refused_unknown_key(refusal):
    assert refusal({"sceds": [0]}) == "config.yaml: sceds: unknown key; did you mean 'seeds'?"
    text = refusal({"datasets": {"lvis": {"train_imges": 10}}})
    assert text == "config.yaml: datasets.lvis.train_imges: unknown key; did you mean 'train_images'?"
    text = refusal({"needs": {"train": {"memory": 1}}})
    assert text.startswith("config.yaml: needs.train.memory: unknown key")
    text = refusal(None, {"mosaicfusion": {"images_per_categry": 3}})
    assert (
        "all.yaml: mosaicfusion: images_per_categry: unknown key; did you mean 'images_per_category'?" in text
    )
    assert "rare.yaml: arms.real.synthetc: unknown key" in refusal(rare={"arms": {"real": {"synthetc": []}}})
    assert "rare.yaml: gallery: kep: unknown key; did you mean 'kept'?" in refusal(
        rare={"gallery": {"kep": 1}}
    )


def test_bad_input_is_refused_unknown_reference(refusal):
    assert "config.yaml: studies: no file" in refusal({"studies": ["rar"]})
    assert "did you mean 'rare'?" in refusal({"studies": ["rar"]})
    assert "rare.yaml: dataset: 'lvs' is not a data set of config.yaml" in refusal(rare={"dataset": "lvs"})
    assert "rare.yaml: detector: 'mask' is not a detector" in refusal(rare={"detector": "mask"})
    text = refusal(rare={"arms": {"mosaicfusion": {"synthetic": ["mosaicfusio"]}}})
    assert text.endswith(
        "arms.mosaicfusion.synthetic: no such engine 'mosaicfusio'; did you mean 'mosaicfusion'?"
    )
    assert refusal({"engines": {"mosaic": {}}}).startswith("config.yaml: engines.mosaic: no such engine")
    assert "baseline: no such arm 'rael' on lvis; did you mean 'real'?" in refusal(rare={"baseline": "rael"})
    assert "rare.yaml: metrics: " in refusal(rare={"metrics": ["mask_APx"]})
    text = refusal({"detectors": {"mask-rcnn": {"config": "config/detectors/mask.py"}}})
    assert text == "config.yaml: detectors.mask-rcnn.config: no such file config/detectors/mask.py"
    published = {"source": "a paper", "mosaic": {"mask_AP": 1.0}}
    assert "published.mosaic: no such arm" in refusal(rare={"published": published})


def test_bad_input_is_refused_engine_files(refusal):
    text = refusal(None, {"new": {"objects": [1]}})
    assert text.endswith("all.yaml: new.method: required key is missing (or give a `base`)")
    text = refusal(None, {"new": {"base": "mosaicfuson"}})
    assert "new.base: no such engine 'mosaicfuson'; did you mean 'mosaicfusion'?" in text
    text = refusal(None, {"a": {"base": "b"}, "b": {"base": "c"}, "c": {"base": "a"}})
    assert text.endswith("a.base: inherits from itself: a -> b -> c -> a")


def test_variants_inherit_the_base_and_what_the_scale_changes_in_it(project):
    scale = {"engines": {"mosaicfusion": {"images_per_category": 4, "denoising": {"steps": 10}}}}
    arms = {"arms": {"small": {"synthetic": ["mosaicfusion-small"]}}}
    engines = project(scale, rare=arms).engines
    small = engines["mosaicfusion-small"].settings
    assert (small.objects, small.images_per_category, small.denoising.steps) == ((1,), 4, 10)
    assert small.denoising.guidance == engines["mosaicfusion"].settings.denoising.guidance
    scale["engines"]["mosaicfusion-small"] = {"images_per_category": 2}
    engines = project(scale, rare=arms).engines
    assert engines["mosaicfusion-small"].settings.images_per_category == 2
    assert engines["mosaicfusion"].settings.images_per_category == 4


def test_variants_that_differ_only_after_generation_share_images(project):
    arms = {"arms": {"stricter": {"synthetic": ["stricter", "mosaicfusion-strict", "mosaicfusion-small"]}}}
    engines = project(
        None, {"stricter": {"base": "mosaicfusion-strict", "filter": {"max_instances": 2}}}, rare=arms
    ).engines
    assert engines["stricter"].images == engines["mosaicfusion-strict"].images == "mosaicfusion"
    assert engines["stricter"].filter.min_area_fraction == 0.1
    assert engines["mosaicfusion-small"].images == "mosaicfusion-small"


def test_only_engines_of_the_run_must_suit_the_scale(project, refusal):
    too_small = {"engines": {"mosaicfusion": {"region_height": 64, "overlap_height": 32}}}
    wide = {"wide": {"base": "mosaicfusion", "overlap_height": 400}}
    assert "wide" not in project(too_small, wide).engines
    arms = {"arms": {"wide": {"synthetic": ["wide"]}}}
    assert "wide: overlap_height: half of it must fit" in refusal(too_small, wide, rare=arms)
    assert "wide: overlap_hight: unknown key" in refusal(
        None, {"wide": {"base": "mosaicfusion", "overlap_hight": 4}}
    )


def test_one_arm_is_one_recipe(project, refusal):
    other = {"arms": {"mosaicfusion": {"synthetic": ["mosaicfusion-small"]}}}
    text = refusal({"studies": ["rare", "other"]}, other=other)
    assert "other.yaml: arms.mosaicfusion: means another recipe than in config/studies/rare.yaml" in text
    relabelled = {"arms": {"mosaicfusion": {"label": "with synthetic data"}}}
    assert len(project({"studies": ["rare", "other"]}, other=relabelled).arms) == 2


def test_an_arm_changes_settings_of_its_detector(project):
    arms = {"arms": {"mixed": {"synthetic": ["mosaicfusion"], "train": {"synthetic_batches": 0.2}}}}
    trainings = project(rare=arms).studies["rare"].trainings
    assert trainings["mixed"].settings.synthetic_batches == 0.2
    assert trainings["mixed"].settings.config == trainings["real"].settings.config
    assert trainings["real"].settings.synthetic_batches is None


def test_a_detector_that_is_the_same_as_another_shares_its_trainings(project):
    config = {"config": "config/detectors/mask_rcnn.py"}
    detectors = {
        "as-long": {"same_as": "longer"},
        "mask-rcnn": config,
        "longer": {**config, "schedule": 2},
        "equal": {**config, "schedule": 2},
    }
    scale = {"studies": ["rare", "other"], "detectors": detectors}
    asks = {"mosaicfusion": {"filter": {"agreement": {"enabled": True, "detector": "as-long"}}}}
    checked = project(scale, asks, rare={"detector": "as-long"}, other={"detector": "longer"})
    assert {row.detector for row in checked.arms.values()} == {"longer"} and len(checked.arms) == 2
    assert checked.studies["rare"].table.detector == "as-long"
    assert checked.studies["rare"].trainings["real"].settings.schedule == 2
    apart = project(
        {**scale, "detectors": detectors}, rare={"detector": "equal"}, other={"detector": "longer"}
    )
    assert {row.detector for row in apart.arms.values()} == {"equal", "longer"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"same_as": "mask-rcn"},
            "no detector 'mask-rcn' with settings of its own; did you mean 'mask-rcnn'?",
        ),
        ({"same_as": "other"}, "no detector 'other' with settings of its own; known: mask-rcnn"),
        (
            {"same_as": "mask-rcnn", "schedule": 2},
            "schedule beside same_as; a detector is the same or another",
        ),
    ],
)
def test_bad_input_is_refused_same_detector(refusal, entry, expected):
    own = {"config": "config/detectors/mask_rcnn.py"}
    text = refusal({"detectors": {"mask-rcnn": own, "other": entry}})
    assert text.startswith("config.yaml: detectors: other") and text.endswith(expected), text


def test_the_same_recipe_with_other_settings_is_another_recipe(project, refusal):
    changes = {"real": {"train": {"schedule": 2}}, "mosaicfusion": {"real": False}}
    for arm, change in changes.items():
        text = refusal({"studies": ["rare", "other"]}, other={"arms": {arm: change}})
        assert f"other.yaml: arms.{arm}: means another recipe than in config/studies/rare.yaml" in text


def test_bad_input_is_refused_settings_of_an_arm(refusal):
    def problem(**arm):
        return refusal(rare={"arms": {"mosaicfusion": arm}})

    text = problem(train={"synthetic_batches": 2})
    assert "rare.yaml: arms.mosaicfusion.train: synthetic_batches: Input should be less than" in text
    assert "arms.mosaicfusion.train: ignore_backgroud: unknown key; did you mean 'ignore_background'?" in (
        problem(train={"ignore_backgroud": True})
    )
    assert "arms.mosaicfusion.train.config: no such file a.py" in problem(train={"config": "a.py"})
    assert "arms.mosaicfusion.dataset: 'cocoa' is not a data set" in problem(dataset="cocoa")
    assert "arms.mosaicfusion: neither real nor synthetic images" in problem(real=False, synthetic=[])
    assert "arms.mosaicfusion.baseline: no such arm 'rael'" in problem(baseline="rael")
    text = refusal(rare={"lines": [{"x": "p", "lines": {"ours": [[0, "rael"]]}}]})
    assert "rare.yaml: lines.0.lines.ours: no such arm 'rael'" in text


def test_rows_over_several_data_sets_share_recipes(project, refusal):
    tenth = {"dataset": "tenth"}
    arms = {
        "real-10": tenth | {"recipe": "real"},
        "engine-10": tenth | {"recipe": "mosaicfusion", "synthetic": ["mosaicfusion"]},
    }
    scale = {"datasets": {"tenth": {"source": "miniature"}}}
    checked = project(scale, rare={"arms": arms})
    assert set(checked.arms) == {
        (data, "mask-rcnn", arm) for data in ("lvis", "tenth") for arm in ("real", "mosaicfusion")
    }
    table = checked.studies["rare"].table
    assert [table.baseline_of(row) for row in table.arms] == ["real", "real", "real-10", "real-10"]
    assert checked.studies["rare"].sets == [("lvis", "mosaicfusion"), ("tenth", "mosaicfusion")]
    other = {"other-10": tenth | {"recipe": "mosaicfusion"}}
    assert "arms.other-10: means another recipe" in refusal(scale, rare={"arms": arms | other})
    del arms["real-10"]
    assert "rare.yaml: baseline: no such arm 'real' on tenth" in refusal(scale, rare={"arms": arms})


def test_bad_input_is_refused_subset_of_nothing(refusal):
    part = {"source": "subset", "of": "lvsi", "share": 0.1}
    text = refusal({"datasets": {"part": part}})
    assert text == "config.yaml: datasets.part.of: no whole data set 'lvsi'; did you mean 'lvis'?"
    assert "datasets.part.share: Input should be less than or equal to 1" in refusal(
        {"datasets": {"part": part | {"share": 10}}}
    )


def test_seeds_from_the_command_line(project, refusal):
    assert project({"seeds": ["0", "1", "2"]}).config.seeds == (0, 1, 2)  # as Snakemake reads seeds=[0,1,2]
    assert "seeds: the same value twice" in refusal({"seeds": [0, 0]})
    assert "seeds.0: Input should be greater than or equal to 0 (got -1)" in refusal({"seeds": [-1]})


def test_names_that_cannot_be_folders_are_refused(refusal):
    assert "config.yaml: datasets." in refusal({"datasets": {"../lvis": {"source": "miniature"}}})
    assert "scale: String should match pattern" in refusal({"scale": "Paper/1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "line 2: key 'a' twice"),
        ("a: [1\nb: 2\n", "line 2: "),
        ("- a\n", "expected keys and values, found list"),
        ("", "expected keys and values, found NoneType"),
    ],
)
def test_broken_yaml_is_one_line(tmp_path, text, expected):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    assert str(error.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(error.value)


def test_generated_files_are_up_to_date():
    outdated = [
        name for name, text in reference.generated_files().items() if (ROOT / name).read_text() != text
    ]
    assert not outdated, f"{outdated}: run `make schema`"


def test_the_reference_is_valid_yaml_and_its_defaults_are_accepted():
    scale, study, costs, *engines = yaml.safe_load_all(reference.reference())
    required = {
        key: SCALE[key] for key in ("scale", "results", "studies", "foundation", "datasets", "detectors")
    }
    assert parse_settings(Config, merge(scale, required), source="reference")
    assert study["gallery"]["kept"] > 0
    assert costs.keys() == Costs.model_fields.keys()
    for engine in engines:
        assert engine["<name>"]["method"]


@pytest.mark.parametrize("name", ["config", "study", "engines"])
def test_schemas_refuse_what_the_settings_refuse(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / f"config/schema/{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    folder = {"config": ".", "study": "studies", "engines": "engines"}[name]
    files = [ROOT / "config" / file for file in SCALES] if name == "config" else []
    for path in files or sorted((ROOT / "config" / folder).glob("*.yaml")):
        values = read_yaml(path)
        jsonschema.validate(values, schema)
        typo = values if name != "engines" else next(iter(values.values()))
        typo["no-such-key"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values, schema)


def test_what_the_snakefile_imports_takes_under_a_second_and_loads_no_torch():
    code = (
        "import sys, time; start = time.process_time(); import gen4det.orchestration.jobs; "
        "print(time.process_time() - start, *{'torch', 'numpy', 'transformers'} & set(sys.modules))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(len(run) == 1 for run in runs), f"loads {runs[0][1:]}"
    assert min(float(run[0]) for run in runs) < 1
