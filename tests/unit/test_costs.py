"""The estimate before a run: its counts are those of a dry run, its work that of the engines."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import read_yaml
from gen4det.detection.config_files import guises, kept_draws
from gen4det.diffusion.settings import DenoisingSettings
from gen4det.engines.base import known_methods, settings_class
from gen4det.engines.mosaicfusion.plan import draw_canvases
from gen4det.engines.mosaicfusion.settings import Settings as MosaicFusion
from gen4det.engines.work import drawing, model_calls
from gen4det.orchestration.costs.__main__ import on_this_machine, report
from gen4det.orchestration.costs.data_sizes import DataSizes, public_sizes
from gen4det.orchestration.costs.estimates import Estimator, training_length
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.costs.tasks import jobs_by_rule, tasks
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]
MINIATURE, PAPER = ROOT / "config/config.yaml", ROOT / "config/paper.yaml"
STUDIES = sorted(path.stem for path in (ROOT / "config/studies").glob("*.yaml") if path.stem != "own")
"""All but that of one's own data, which these scales have not."""
COSTS = sorted((ROOT / "config/costs").glob("*.yaml"))


def project(scale=PAPER, **changes):
    return load_project(read_yaml(scale) | changes, source=str(scale), root=ROOT)


RARE = ["lvis_rare"]
THREE = {"lvis_rare": ["real", "mosaicfusion", "gen2det"]}
"""Arms whose work is counted by hand below."""


def costs(path=COSTS[0]) -> Costs:
    return parse_settings(Costs, read_yaml(path), source=str(path))


def dry_run(scale: Path, **changes) -> dict[str, int]:
    """Jobs by rule as Snakemake counts them where nothing is made yet."""
    values = [f"{key}={value}" for key, value in changes.items()]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--configfile", str(scale)]
    said = subprocess.run(
        [*command, "--config", "results=results/never-made", *values],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    table = (said.stdout + said.stderr).partition("Job stats:")[2]
    rows = re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    return {rule: int(jobs) for rule, jobs in rows if rule not in ("all", "total")}


@pytest.mark.parametrize(
    ("scale", "changes"),
    [
        (MINIATURE, {}),
        (
            ROOT / "tests/workflow/config.yaml",
            {"seeds": [0, 2], "shards": 3, "engine_shards": {"gen2det": 4}},
        ),
        (MINIATURE, {"studies": STUDIES, "seeds": [1]}),
        (PAPER, {}),
        (PAPER, {"studies": STUDIES, "shards": 2}),
    ],
    ids=["miniature", "seeds and shards", "filters ask another seed", "paper", "paper, all studies"],
)
def test_jobs_are_those_of_a_dry_run(scale, changes):
    counted = jobs_by_rule(tasks(project(scale, **changes)))
    assert counted == dry_run(scale, **{key: str(value).replace("'", "") for key, value in changes.items()})


def test_the_whole_paper_scale_with_a_hundred_thousand_shards_is_counted_at_once():
    began = time.monotonic()
    text = report(PAPER, changes={"studies": STUDIES, "shards": 99_999})
    assert time.monotonic() - began < 30
    drawn = jobs_by_rule(tasks(project(studies=STUDIES)))["plan"]
    assert re.search(rf"^generate +{drawn * 99_999} ", text, re.MULTILINE)


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_of_the_papers_has_a_price(study):
    text = report(PAPER, changes={"studies": [study]})
    assert "?" not in text
    assert re.search(r"^total +\d+ +[\d,.]+ +[\d.]+ [GT]B$", text, re.MULTILINE), text


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_of_the_miniature_has_minutes_on_this_machine(study):
    text = report(MINIATURE, changes={"studies": [study], "arms": {}})
    assert "?" not in text and "core-hours" in text and "one core" in text
    assert re.search(r"With the \d+ cores here: about \d+ minutes\.$", text, re.MULTILINE), text


def test_hours_of_a_core_are_those_of_the_counted_work():
    small, prices = project(MINIATURE, arms={"lvis_rare": ["real"]}), costs()
    rules = Estimator(small, prices).by_rule(tasks(small))
    speed = prices.core.trained_images["config/detectors/miniature_mask_rcnn.py"]
    assert rules["train"].seconds == pytest.approx(600 * 8 / speed + prices.core.job_start)


def test_what_is_rendered_costs_no_evaluation():
    small = project(MINIATURE, studies=["lvis_rare_controls"])
    rules = Estimator(small, costs()).by_rule([t for t in tasks(small) if t.engine == "oracle"])
    assert rules["generate"].work == 0 and rules["generate"].stored > 0


def test_without_speeds_of_a_core_its_hours_are_not_estimated():
    small, values = project(MINIATURE), read_yaml(COSTS[0])
    del values["core"], values["small_models"]
    estimator = Estimator(small, parse_settings(Costs, values, source="test"))
    assert on_this_machine(estimator.by_rule(tasks(small))) == "Hours on processors are not estimated."


def test_the_planner_imports_no_torch():
    code = (
        "import sys, gen4det.orchestration.costs.__main__ as m; from pathlib import Path;"
        f"m.report(Path({str(PAPER)!r})); sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    )


def test_a_wrong_scale_is_one_line():
    with pytest.raises(InputError, match="studies: no file"):
        report(PAPER, changes={"studies": ["lvis_rar"]})


# --- work ---------------------------------------------------------------------------------------------------


def test_every_engine_is_priced():
    for method in known_methods():
        if settings_class(method).checked_steps().draw.manifest_of:
            continue  # what it draws, another variant has planned
        assert drawing(settings_class(method)(), public_sizes(ROOT)["lvis"]).images > 0, method


@pytest.mark.parametrize("scheduler", ["lms", "pndm", "ddim", "dpm-solver++", "euler", "checkpoint"])
@pytest.mark.parametrize("steps", [12, 50])
def test_noise_predictions_are_the_schedulers(scheduler, steps):
    from diffusers import PNDMScheduler

    from gen4det.diffusion.schedulers import make_scheduler

    checkpoint = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    made = make_scheduler(checkpoint, scheduler)
    made.set_timesteps(steps)
    settings = DenoisingSettings(scheduler=scheduler, steps=steps)
    assert model_calls(settings) == len(made.timesteps)


@pytest.mark.parametrize("objects", [(1,), (2,), (4,), (1, 2, 4)])
def test_mosaicfusion_is_counted_as_it_is_drawn(objects):
    settings = MosaicFusion(objects=objects, images_per_category=300)
    size = public_sizes(ROOT)["lvis"].model_copy(update={"categories": {"r": 2, "c": 1, "f": 1}})
    counted = drawing(settings, size)
    drawn = list(draw_canvases([1, 2], [1, 2, 3, 4], settings, 0, 8))
    assert counted.images == len(drawn)
    boxes = [box for canvas in drawn for box in canvas.layout.regions]
    assert counted.labels == pytest.approx(len(boxes) / len(drawn), rel=0.05)
    assert counted.evaluations == pytest.approx(2 * 50 * counted.labels)
    mean = sum(width * height for _, _, width, height in boxes) / len(boxes)
    assert counted.evaluated_pixels == pytest.approx(mean, rel=0.03)
    canvas = sum(canvas.layout.height * canvas.layout.width for canvas in drawn) / len(drawn)
    assert counted.stored_pixels == pytest.approx(canvas, rel=0.05)


def test_the_papers_sets_have_the_papers_sizes():
    paper = project(studies=RARE, arms=THREE)
    lvis = DataSizes(paper)("lvis")
    names = paper.studies["lvis_rare"].engines
    images = {name: drawing(paper.engines[name].settings, lvis).images for name in names}
    assert images == {"mosaicfusion": 337 * 25, "gen2det": 2 * 100_170}


def test_a_training_is_as_long_as_the_detector_says():
    paper = project(studies=["gen2det_sweeps"])
    rows = paper.studies["gen2det_sweeps"].trainings
    assert training_length(rows["gen2det-1x"], ROOT) == (90_000, 16)
    assert training_length(rows["gen2det-3x"], ROOT) == (270_000, 16)


def test_hours_are_work_over_speed():
    paper, prices = project(studies=RARE, arms=THREE), costs()
    rules = Estimator(paper, prices).by_rule(tasks(paper))
    speed = prices.gpu.trained_images["config/detectors/lvis_mask_rcnn_r50_fpn.py"]
    assert rules["train"].seconds == pytest.approx(3 * (90_000 * 16 / speed + prices.gpu.job_start))
    mosaicfusion, gen2det = 8425 * 4 * 50 * 2, 2 * 100_170 * 51 * 2  # PLMS: one more than steps
    assert rules["generate"].work == mosaicfusion + gen2det


def test_jobs_that_outlast_their_time_are_named():
    needs = read_yaml(PAPER)["needs"]
    short = needs | {"predict": needs["predict"] | {"runtime": 10}, "train": needs["train"] | {"gpu": 8}}
    said = report(PAPER, changes={"needs": short, "studies": RARE, "arms": THREE})
    assert re.search(
        r"^predict: its longest job .* needs.predict.runtime, and must be given more$", said, re.M
    )
    assert not re.search("^train: ", said, re.M)
    assert re.search(
        r"^train: .* goes on in another attempt$",
        report(PAPER, changes={"studies": RARE, "arms": THREE}),
        re.M,
    )


def test_downloads_that_data_sets_share_are_stored_once():
    paper = project(studies=["lvis_rare", "coco_low_data"])
    estimator = Estimator(paper, costs())
    found = [task for task in tasks(paper) if task.rule == "download"]
    both = estimator.by_rule(found)["download"].stored
    each = [estimator.by_rule([task])["download"].stored for task in found]
    assert len(each) == 2 and max(each) < both < max(each) + 3e9 < sum(each)


def test_a_model_of_unknown_work_has_unknown_hours():
    paper = project(
        foundation=read_yaml(PAPER)["foundation"] | {"diffusion": {"path": "a/b", "revision": "c"}}
    )
    rules = Estimator(paper, costs()).by_rule(tasks(paper))
    assert rules["generate"].seconds is None and rules["train"].seconds > 0


@pytest.mark.parametrize("path", COSTS, ids=lambda path: path.stem)
def test_files_of_costs_name_what_exists(path):
    named = costs(path)
    detectors = {*named.gpu.trained_images, *named.gpu.predicted_images, *named.files.weights}
    detectors |= {*named.core.trained_images, *named.core.predicted_images}
    assert all((ROOT / name).is_file() for name in detectors)
    assert "float32" in named.gpu.arithmetic
    registry = read_yaml(ROOT / "resources/data_registry.yaml")
    assert named.files.downloaded.keys() == registry["models"].keys() | registry["weights"].keys()
    assert named.models.unet.keys() <= named.files.downloaded.keys()


def test_a_fit_costs_what_the_unet_sees_of_it():
    paper, prices = project(studies=["detdiffusion_trainability"]), costs()
    rules = Estimator(paper, prices).by_rule(tasks(paper))
    fits = [task for task in tasks(paper) if task.rule == "fit" and task.step == "generator"]
    seen = 11_000 * 256
    assert len(fits) == 4 and rules["fit"].work >= 4 * seen
    arithmetic = prices.gpu.arithmetic["float16"]
    speed = 1000 * arithmetic.peak * arithmetic.share
    unet = 4 * prices.models.unet["stable-diffusion-1-5"] / 4 / speed  # a quarter of 512 x 512 px, four times
    encoder = prices.models.encode / 4 / (1000 * 19.5 * 0.7)
    assert rules["fit"].seconds == pytest.approx(4 * seen * (unet + encoder), rel=0.01)


def test_features_that_an_adapter_keeps_while_it_is_trained_are_counted():
    """Of each image, mirrored or not, 12.75 numbers of two bytes to a pixel."""
    changes = {"studies": ["cross_domain"], "arms": {"cross_domain": ["real", "adapter"]}}
    small, prices = project(MINIATURE, **changes), costs()
    estimator, found = Estimator(small, prices), [it for it in tasks(small) if it.rule == "train"]
    kept = {it.training.detector: estimator.of(it).passing for it in found}
    size = estimator.sizes("voc")
    assert kept == {"adapter": size.train_images * 2 * size.pixels * 2 * 12.75, "faster-rcnn": 0}
    said = report(MINIATURE, changes=changes)
    assert re.search(
        r"^train: while it runs, a job keeps up to [\d.]+ [GM]B more, features of its", said, re.M
    )


@pytest.mark.parametrize(
    ("text", "draws", "seen"),
    [
        ("", 1, (2, None)),
        ("model['backbone'] = dict(kept_draws=3)", 3, (2, None)),
        (
            "train_pipeline = [dict(type='LoadStoredImage'), dict(type='Resize', scale=(64, 32))]",
            1,
            (1, 2048),
        ),
        ("train_pipeline = [dict(type='RandomChoiceResize', scales=[])]", 1, (None, None)),
    ],
)
def test_what_is_kept_is_read_from_the_config_and_its_base(tmp_path, text, draws, seen):
    path = tmp_path / "mine.py"
    path.write_text(
        f"_base_ = {str(ROOT / 'config/detectors/miniature_diffusion_faster_rcnn.py')!r}\n{text}\n"
    )
    assert (kept_draws(path), guises(path)) == (draws, seen)
    assert kept_draws(ROOT / "config/detectors/coco_diffusion_dino.py") == 0
