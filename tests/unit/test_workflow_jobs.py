"""What the rules ask of plain Python: job settings, inputs, targets, resources."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gen4det.core.errors import InputError
from gen4det.core.provenance import import_closure
from gen4det.core.yaml_files import read_yaml
from gen4det.data.download_settings import DownloadDataset, DownloadModel, ModelDownloads
from gen4det.detection.config_files import config_files
from gen4det.filters.settings import FilterSettings
from gen4det.orchestration.commands import device, helpers, loaders, shell_prefix, time_budget
from gen4det.orchestration.costs.tasks import jobs_by_rule, tasks
from gen4det.orchestration.downloads import Downloads
from gen4det.orchestration.hashes import FULLY_HASHED, folder_hash, model_hashes, sampled_hash
from gen4det.orchestration.jobs import Jobs, one_of
from gen4det.orchestration.messages import NOTE, explain_failures, explain_locks, note_run
from gen4det.orchestration.project import Project, load_project

ROOT = Path(__file__).parents[2]
WORDS = {"dataset": "lvis", "detector": "mask-rcnn", "engine": "mosaicfusion", "study": "lvis_rare"}
JOBS = ("data", "plan", "generate", "filter", "train", "predict", "measure", "table", "gallery")


def wildcards(**more: str) -> SimpleNamespace:
    return SimpleNamespace(**{**WORDS, "arm": "mosaicfusion", "seed": "0", "on": "lvis", **more})


@pytest.fixture(scope="module")
def jobs() -> Jobs:
    project = load_project(read_yaml(ROOT / "config/config.yaml"), source="config.yaml", root=ROOT)
    return Jobs(project)


def changed(**changes) -> Jobs:
    values = read_yaml(ROOT / "config/config.yaml") | changes
    return Jobs(load_project(values, source="config.yaml", root=ROOT))


def test_a_job_is_one_text_with_settings_and_code(jobs):
    for name in JOBS:
        job = json.loads(getattr(jobs, name)(wildcards()))
        assert {"settings", "code"} <= job.keys()
        assert re.fullmatch("[0-9a-f]{16}", job["code"])


def test_stages_accept_their_settings(jobs):
    """What a rule passes is what the stage's typed settings expect, key by key."""
    from gen4det.data.settings import MiniatureDataset
    from gen4det.detection.settings import TrainSettings
    from gen4det.evaluation.settings import MeasureSettings
    from gen4det.evaluation.study_settings import GallerySettings, StudySettings
    from gen4det.filters.settings import FilterSettings
    from gen4det.stages.predict import PredictStageSettings

    def settings(name):
        return json.loads(getattr(jobs, name)(wildcards()))["settings"]

    MiniatureDataset.model_validate(settings("data"))
    TrainSettings.model_validate(settings("train"))
    StudySettings.model_validate(settings("table"))
    GallerySettings.model_validate(settings("gallery"))
    MeasureSettings.model_validate(settings("measure")["evaluation"])
    PredictStageSettings.model_validate(settings("predict"))
    FilterSettings.model_validate(settings("filter")["filter"])
    assert (
        settings("plan").keys() == settings("generate").keys() == {"engine", "step", "foundation", "run_seed"}
    )


def test_the_order_of_arms_reaches_the_table(jobs):
    arms = read_yaml(ROOT / "config/studies/lvis_rare.yaml")["arms"]
    here = jobs.config.arms.get("lvis_rare", arms)
    found = list(json.loads(jobs.table(wildcards()))["settings"]["arms"])
    assert found == [arm for arm in arms if arm in here]


def test_an_engine_is_told_only_of_the_models_it_reads(jobs):
    job = json.loads(jobs.generate(wildcards()))
    assert job["settings"]["foundation"].keys() == {"diffusion"}


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({"seeds": [0, 1]}, {"table"}),
        ({"run_seed": 1}, {"plan", "generate"}),
        ({"shards": 5}, {"generate"}),
        ({"engine_shards": {"mosaicfusion": 5}}, {"generate"}),
        ({"engine_shards": {"gen2det": 5}}, set()),
        ({"scale": "other"}, {"table", "gallery"}),
        ({"needs": {"train": {"threads": 1}}}, set()),
        ({"results": "results/elsewhere"}, set()),
        ({"evaluation": {"kinds": ["box"]}}, {"measure"}),
        ({"evaluation": {"max_per_image": 50}}, {"predict"}),
        ({"engines": {"mosaicfusion": {"filter": {"min_score": 0.5}}}}, {"filter", "plan", "generate"}),
    ],
)
def test_only_what_a_job_reads_is_in_it(changes, affected):
    before, after = changed(engines={}), changed(**{"engines": {}, **changes})
    if "engines" in changes:
        affected = affected - {"plan", "generate"}
    for name in JOBS:
        same = getattr(before, name)(wildcards()) == getattr(after, name)(wildcards())
        assert same == (name not in affected), name


def test_targets_are_the_pages_of_the_configured_studies(jobs):
    assert jobs.targets() == [
        "results/miniature/tables/lvis_rare.csv",
        "results/miniature/figures/lvis_rare.pdf",
        "results/miniature/figures/lvis_rare_gallery.pdf",
        "results/miniature/synthetic/lvis/gen2det/filter.pdf",
        *(
            f"results/miniature/detectors/lvis/mask-rcnn/{arm}/seed0/losses.png"
            for arm in ("real", "mosaicfusion", "gen2det")
        ),
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "lvis/mask-rcnn/reel/seed0/metrics.json",
            "no study of this run trains lvis/mask-rcnn/reel; did you mean",
        ),
        ("lvis/mask-rcnn-2x/real/seed0/metrics.json", "mask-rcnn-2x is the same as mask-rcnn, see there"),
        ("coco/mask-rcnn/real/seed0/weights.safetensors", "no study of this run trains coco/mask-rcnn/real"),
    ],
)
def test_targets_outside_the_studies_are_refused_in_one_line(jobs, target, expected):
    with pytest.raises(InputError, match=expected):
        jobs.check_targets(["snakemake", f"results/miniature/detectors/{target}"])
    jobs.check_targets(
        ["snakemake", "all", "results/miniature/detectors/lvis/mask-rcnn/real/seed0/metrics.json"]
    )


def test_inputs(jobs):
    assert jobs.metrics(wildcards()) == [
        f"results/miniature/detectors/lvis/mask-rcnn/{arm}/seed0/lvis/metrics.json"
        for arm in ("real", "mosaicfusion", "gen2det")
    ]
    assert jobs.synthetic_sets(wildcards(arm="real")) == jobs.synthetic_files(wildcards(arm="real")) == []
    assert jobs.synthetic_sets(wildcards()) == ["results/miniature/synthetic/lvis/mosaicfusion/set.json"]
    shards = jobs.labels(wildcards())
    assert shards[0] == "results/miniature/synthetic/lvis/mosaicfusion/shards/00000.arrow"
    assert len(shards) == len(jobs.synthetic_files(wildcards())) / 2 == jobs.config.shards  # images, labels
    assert jobs.reads("draw")(wildcards()) == []


def test_an_engine_may_have_another_number_of_shards():
    detectors = read_yaml(ROOT / "config/config.yaml")["detectors"]
    jobs = changed(
        studies=["gen2det_components"], shards=2, engine_shards={"gen2det": 3}, detectors=detectors
    )
    follower = wildcards(engine="gen2det-unfiltered", arm="gen2det-unfiltered")
    assert jobs.project.engines["gen2det-unfiltered"].images == "gen2det"
    for engine in (wildcards(engine="gen2det"), follower):
        files = [jobs.labels, jobs.shard_images, jobs.shard_records]
        assert [len(ask(engine)) for ask in files] == [3, 3, 3] and jobs.shards(engine) == 3
    gen2det = wildcards(engine="gen2det")
    assert len(jobs.ratings(gen2det)) == len(jobs.detections(gen2det)) == 3
    counted = jobs_by_rule(tasks(jobs.project))
    assert (counted["generate"], counted["rate"], counted["detect"]) == (3, 3, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gen2dett", "engine_shards.gen2dett: no such engine; did you mean 'gen2det'"),
        (
            "gen2det-unfiltered",
            "engine_shards.gen2det-unfiltered: its images are those of gen2det; name that",
        ),
    ],
)
def test_bad_input_is_refused_numbers_of_shards_of_engines_that_draw_nothing(name, expected):
    with pytest.raises(InputError, match=expected) as refused:
        changed(studies=["gen2det_components"], engine_shards={name: 3})
    assert "\n" not in str(refused.value)


def test_wildcards_match_configured_names_only(jobs):
    assert re.fullmatch(jobs.names("dataset"), "lvis")
    assert not re.fullmatch(jobs.names("dataset"), "lvis/x")
    assert not re.fullmatch(one_of([]), "") and not re.fullmatch(one_of([]), "a")
    assert re.fullmatch(one_of(["a.b"]), "a.b") and not re.fullmatch(one_of(["a.b"]), "aXb")
    assert jobs.datasets_from("download") == one_of([])


def test_a_retry_asks_for_more(jobs):
    memory, minutes = jobs.memory("evaluate"), jobs.runtime("evaluate")
    assert memory(None, [], attempt=2) == 2 * memory(None, [], attempt=1) == 2 * jobs.needs("evaluate").mem_mb
    assert minutes(None, attempt=2) == 2 * jobs.needs("evaluate").runtime


def test_what_follows_the_machine():
    cpu, gpu = SimpleNamespace(gpu=0, runtime=60), SimpleNamespace(gpu=1, runtime=60)
    assert (device(None, cpu), device(None, gpu)) == ("cpu", "cuda")
    assert (loaders(None, cpu, 4), loaders(None, gpu, 4)) == (0, 4)
    assert (helpers(None, 1), helpers(None, 2), helpers(None, 8)) == (1, 1, 7)
    assert time_budget(limited=False)(None, cpu) == ""
    assert time_budget(limited=True)(None, cpu) == "--max-seconds 3420"


def test_code_of_a_stage_is_what_it_runs():
    from gen4det.core.provenance import import_closure

    def rooms(*modules):
        return {name.split(".")[1] for name in import_closure(*modules) if "." in name}

    assert not rooms("gen4det.stages.render") & {"engines", "detection", "diffusion", "evaluation", "filters"}
    assert not rooms("gen4det.stages.filter") & {"detection", "evaluation"}
    assert not rooms("gen4det.stages.train") & {"engines", "diffusion", "evaluation", "filters", "miniature"}
    assert not rooms("gen4det.stages.predict") & {"engines", "diffusion", "filters"}
    assert not rooms("gen4det.stages.measure") & {"engines", "diffusion", "filters", "detection"}
    assert not rooms("gen4det.stages.plot") & {"engines", "diffusion", "detection", "filters"}
    drawing = rooms("gen4det.stages.generate", "gen4det.engines.mosaicfusion.draw")
    assert {"engines", "diffusion"} <= drawing and not drawing & {"detection", "evaluation"}
    for stage in ("render", "plan", "generate", "filter", "train", "predict", "measure", "plot"):
        assert not rooms(f"gen4det.stages.{stage}") & {"config", "workflow", "messages"}


# --- hashes ---------------------------------------------------------------------------------------


def test_folder_hash_follows_contents_not_times(tmp_path):
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet/weights").write_bytes(b"one")
    (folder / ".hidden").write_bytes(b"ignored")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    os.utime(copy / "unet/weights", (0, 0))
    (copy / ".hidden").unlink()
    assert folder_hash(folder) == folder_hash(copy)
    other = tmp_path / "other"
    (other / "unet").mkdir(parents=True)
    (other / "unet/weights").write_bytes(b"two")
    assert folder_hash(other) != folder_hash(folder)
    assert folder_hash(tmp_path / "nothing") is None


def test_folder_hash_follows_links_to_parts_of_other_models(tmp_path):
    part, pipeline = tmp_path / "stable-diffusion" / "vae", tmp_path / "gligen"
    part.mkdir(parents=True)
    pipeline.mkdir()
    (part / "config.json").write_text("1")
    (pipeline / "vae").symlink_to(part)
    before = folder_hash(pipeline)
    (part / "config.json").write_text("2")
    folder_hash.cache_clear()
    sampled_hash.cache_clear()
    assert folder_hash(pipeline) != before


def test_large_files_are_sampled(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as stream:
        stream.truncate(FULLY_HASHED + 1)
    empty = sampled_hash(path)
    sampled_hash.cache_clear()
    with open(path, "r+b") as stream:
        stream.write(b"x" * 4096)
    assert sampled_hash(path) != empty


def test_models_of_the_hub_are_named_by_revision(tmp_path):
    (tmp_path / "local").mkdir()
    settings = {
        "engine": {"model": {"path": "local", "revision": None}, "steps": 3},
        "foundation": {"diffusion": {"path": "owner/name", "revision": "abc"}},
    }
    assert model_hashes(settings, tmp_path).keys() == {"local"}


def downloading(name: str = "stable-diffusion-1-4", **more) -> Jobs:
    """Jobs of a scale with a model of the registry and registered weights."""
    place = "results/downloads/models"
    values = read_yaml(ROOT / "config/config.yaml")
    detector = values["detectors"]["mask-rcnn"] | {
        "backbone_weights": f"{place}/resnet50-imagenet/resnet50-0676ba61.pth"
    }
    foundation = values["foundation"] | {"diffusion": {"path": f"{place}/{name}"}}
    detectors = values["detectors"] | {"mask-rcnn": detector | more}
    return changed(foundation=foundation, detectors=detectors)


def test_jobs_wait_for_the_models_they_read_and_for_no_other(jobs):
    downloaded = downloading()
    place = "results/downloads/models"
    assert downloaded.models_of("draw")(wildcards()) == [f"{place}/stable-diffusion-1-4/download.json"]
    assert downloaded.models_of("draw")(wildcards(engine="gen2det")) == []
    assert downloaded.rating_models(wildcards()) == []
    assert downloaded.backbone(wildcards()) == [f"{place}/resnet50-imagenet/download.json"]
    for ask in (jobs.models_of("draw"), jobs.rating_models, jobs.backbone):
        assert ask(wildcards()) == []


def test_a_detector_on_a_diffusion_model_depends_on_it_and_on_its_code(jobs):
    def with_diffusion(path):
        detector = {"config": "config/detectors/miniature_diffusion_dino.py", "diffusion": {"path": path}}
        detectors = read_yaml(ROOT / "config/config.yaml")["detectors"]
        return changed(detectors={**detectors, "mask-rcnn": detector})

    own = with_diffusion("resources/miniature/stable-diffusion")
    place = "results/downloads/models/stable-diffusion-2-0-base"
    downloaded = with_diffusion(place)
    assert own.backbone(wildcards()) == []
    assert downloaded.backbone(wildcards()) == [f"{place}/download.json"]
    assert json.loads(own.train(wildcards()))["models"] == {
        "resources/miniature/stable-diffusion": folder_hash(ROOT / "resources/miniature/stable-diffusion")
    }
    assert json.loads(downloaded.train(wildcards()))["models"] == {}
    assert json.loads(jobs.train(wildcards()))["models"] == {}
    for job in ("train", "predict", "detect"):
        code = [json.loads(getattr(all_jobs, job)(wildcards()))["code"] for all_jobs in (own, jobs)]
        assert code[0] != code[1], f"{job}: the code of the backbone is part of it where there is one"
    modules = {module for module in import_closure("gen4det.stages.train")}
    assert not any(module.startswith("gen4det.diffusion") for module in modules)
    with pytest.raises(InputError, match="detectors.mask-rcnn.diffusion.path: .* has no model"):
        with_diffusion("results/downloads/models/stable-diffusion-9")


def test_a_download_does_not_change_the_jobs_that_wait_for_it(tmp_path):
    """Its commit becomes known in the middle of a run: it must not stand among the parameters."""
    place = tmp_path / "results/downloads/models/stable-diffusion-1-4"
    downloads = Downloads(ModelDownloads(registry=str(ROOT / "resources/data_registry.yaml")), tmp_path)
    settings = {"foundation": {"diffusion": {"path": str(place.relative_to(tmp_path)), "revision": None}}}
    place.mkdir(parents=True)
    (place / "model_index.json").write_text("{}")
    assert downloads.hashes(settings) == {}
    own = place.rename(place.parent / "my-own")  # in that folder, but not of the registry
    settings["foundation"]["diffusion"]["path"] = str(own.relative_to(tmp_path))
    assert downloads.hashes(settings) and downloads.needed(settings) == []


def test_a_download_depends_on_its_own_entry_of_the_registry():
    downloads = downloading().downloads
    model = json.loads(downloads.job(SimpleNamespace(model="clip-vit-l-14")))
    assert model["registered"]["hub"] == "openai/clip-vit-large-patch14"
    assert DownloadModel.model_validate(model["settings"]).name == "clip-vit-l-14"
    data = downloads.registered(DownloadDataset(source="download", dataset="lvis"))["registered"]
    assert data["files"].keys() == set(data["dataset"]["files"])
    assert downloads.registered(DownloadDataset(source="download", dataset="nothing")) == {}


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("stable-difusion-1-4", {}, "foundation.diffusion.path: .* has no model .*did you mean"),
        (
            "stable-diffusion-1-4",
            {"backbone_weights": "results/downloads/models/resnet50-imagenet/resnet.pth"},
            "detectors.mask-rcnn.backbone_weights: .* the files of resnet50-imagenet are resnet50-067",
        ),
    ],
)
def test_models_that_nothing_leads_to_are_refused(name, more, expected):
    with pytest.raises(InputError, match=expected):
        downloading(name, **more)


def test_config_files_follow_their_bases(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = ['b.py', 'mdet::x/y.py']\nmodel = 1\n")
    (tmp_path / "b.py").write_text("_base_ = './c.py'\n")
    (tmp_path / "c.py").write_text("lr = 1\n")
    assert [path.name for path in config_files(tmp_path / "a.py")] == ["a.py", "b.py", "c.py"]


def test_lazy_configs_follow_their_bases_too(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.py").write_text(
        "from mmengine.config import read_base\n"
        "with read_base():\n    from .b import *\n    from ..c import schedule\n    from mmdet.x import *\n"
    )
    (tmp_path / "here" / "b.py").write_text("lr = 1\n")
    (tmp_path / "c.py").write_text("schedule = 1\n")
    assert [path.name for path in config_files(tmp_path / "here" / "a.py")] == ["a.py", "b.py", "c.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_ = ['absent.py']", "absent.py: No such file"),
        ("_base_ = [folder + '/b.py']", "_base_ is computed"),
        ("from mmengine.config import read_base\nwith read_base():\n    import b", "line 3: expected `from"),
        ("model = dict(", "a.py: not a config of mmengine"),
    ],
)
def test_configs_whose_bases_nobody_can_follow_are_one_line(tmp_path, text, message):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        config_files(tmp_path / "a.py")
    assert "\n" not in str(refused.value)


# --- shell ----------------------------------------------------------------------------------------


def shell(tmp_path, command: str, **more) -> subprocess.CompletedProcess:
    prefix = shell_prefix(ROOT, environments=False).format()  # as Snakemake does
    return subprocess.run(["bash", "-c", prefix + command], cwd=tmp_path, capture_output=True, **more)


def test_output_is_on_the_screen_and_in_the_log(tmp_path):
    done = shell(tmp_path, r"printf 'one\rtwo\rthree\nend\n' 2>&1 | tee_log job.log")
    assert done.stdout == b"one\rtwo\rthree\nend\n"
    assert (tmp_path / "job.log").read_text() == "one\ntwo\nthree\nend\n"


def test_a_failing_stage_fails_the_job(tmp_path):
    assert shell(tmp_path, "(echo error; exit 75) 2>&1 | tee_log job.log").returncode == 75
    assert (tmp_path / "job.log").read_text() == "error\n"


def test_a_terminated_stage_can_still_save_and_say_so(tmp_path):
    (tmp_path / "stage.py").write_text(
        "import os, signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.3)\n    print('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\nos.killpg(0, signal.SIGTERM)\ntime.sleep(5)\n"
    )
    done = shell(tmp_path, "python stage.py 2>&1 | tee_log job.log", start_new_session=True)
    assert done.returncode == 143
    assert (tmp_path / "job.log").read_text() == "saved\n"


def test_python_is_the_one_that_runs_snakemake(tmp_path):
    code = "import sys, gen4det; print(sys.executable, gen4det.__path__[0])"
    done = shell(tmp_path, f"python -c {shlex.quote(code)}")
    executable, package = done.stdout.decode().split()
    assert Path(executable).parent == Path(sys.executable).parent
    assert Path(package) == ROOT / "workflow/gen4det"


# --- locks ----------------------------------------------------------------------------------------


def test_locks_are_explained(tmp_path):
    assert explain_locks(tmp_path) is None
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.input.lock").write_text("a\n")
    assert "another run is at work" in explain_locks(tmp_path)
    note_run(tmp_path)
    text = explain_locks(tmp_path)
    assert f"another run is at work in this checkout (process {os.getpid()} on {socket.gethostname()}" in text
    ended = subprocess.Popen(["true"])
    ended.wait()
    note = json.loads((tmp_path / NOTE).read_text()) | {"process": ended.pid}
    (tmp_path / NOTE).write_text(json.dumps(note))
    text = explain_locks(tmp_path)
    assert "was killed" in text and "make unlock" in text and "\n" not in text
    (tmp_path / NOTE).write_text(json.dumps(note | {"host": "elsewhere"}))
    assert "on elsewhere" in explain_locks(tmp_path)


def test_failures_are_explained_by_the_last_words_of_their_logs(tmp_path):
    (tmp_path / "a.log").write_text("drawing\nerror: a.png: truncated\n\n")
    (tmp_path / "b.log").write_text("Traceback\nValueError: no\n")
    run_log = tmp_path / "run.log"
    names = [tmp_path / "a.log", tmp_path / "b.log", tmp_path / "gone.log", tmp_path / "a.log"]
    run_log.write_text("".join(f"    log: {name} (check log file(s) for error details)\n" for name in names))
    assert explain_failures([str(run_log)]) == [
        f"{names[0]}: error: a.png: truncated",
        f"{names[1]}: ValueError: no",
        f"{names[2]}: (empty)",
    ]


# --- what filters look at -------------------------------------------------------------------------

MEASURED = {
    "aesthetic": {"enabled": True},
    "agreement": {"enabled": True, "min_score": 0.2, "max_per_image": 100},
}
MODELS = {
    "diffusion": {"path": "resources/miniature/stable-diffusion"},
    "clip": {"path": "resources/miniature/clip"},
    "aesthetic": {"path": "resources/miniature/clip"},  # any folder: only its contents count here
}
SET = "results/miniature/synthetic/lvis/mosaicfusion"


def filtered(chosen: dict | None = None, **more) -> Jobs:
    engines = {"mosaicfusion": {"filter": MEASURED if chosen is None else chosen}}
    return changed(**{"foundation": MODELS, "engines": engines, **more})


def test_a_filter_reads_what_was_measured_and_nothing_else_where_it_is_off():
    jobs = filtered()
    assert jobs.ratings(wildcards())[1] == f"{SET}/aesthetic/00001.json"
    assert jobs.detections(wildcards())[0] == f"{SET}/detections/mask-rcnn/seed0/00000.json"
    assert jobs.calibration(wildcards()) == ["results/miniature/data/lvis/aesthetic.json"]
    assert f"{SET}/filter.pdf" in jobs.targets()
    jobs = filtered({"aesthetic": {"enabled": True, "threshold": 5.0}})
    assert jobs.ratings(wildcards()) and jobs.calibration(wildcards()) == []
    jobs = filtered({})
    assert jobs.ratings(wildcards()) == jobs.detections(wildcards()) == jobs.calibration(wildcards()) == []
    assert f"{SET}/filter.pdf" not in jobs.targets()


def test_a_threshold_measures_and_draws_nothing_again():
    before = filtered()
    thresholds = {
        "aesthetic": {"enabled": True, "threshold": 5.5},
        "agreement": {"enabled": True, "min_score": 0.3, "min_iou": 0.5, "max_per_image": 100},
    }
    after = filtered(thresholds)
    for name in ("data", "plan", "generate", "rate", "calibrate", "detect", "train"):
        assert getattr(before, name)(wildcards()) == getattr(after, name)(wildcards()), name
    assert before.filter(wildcards()) != after.filter(wildcards())


def test_other_models_measure_again():
    before, after = filtered(), filtered(foundation=MODELS | {"aesthetic": MODELS["diffusion"]})
    for name in ("rate", "calibrate"):
        models = json.loads(getattr(before, name)(wildcards()))["models"]
        assert models.keys() == {"resources/miniature/clip"}
        assert getattr(before, name)(wildcards()) != getattr(after, name)(wildcards())
    assert before.detect(wildcards()) == after.detect(wildcards())


def test_variants_share_what_was_measured(monkeypatch):
    chosen = {"agreement": {"enabled": True, "max_per_image": 250}}
    jobs = filtered()
    engine = jobs.project.engines["mosaicfusion"]
    variant = dataclasses.replace(
        engine, name="variant", base="mosaicfusion", filter=FilterSettings.model_validate(chosen)
    )
    engines = {"mosaicfusion": engine, "variant": variant}
    monkeypatch.setattr(Project, "sets", property(lambda self: [("lvis", name) for name in engines]))
    jobs = Jobs(dataclasses.replace(jobs.project, engines=engines))
    assert jobs.detections(wildcards(engine="variant")) == jobs.detections(wildcards())
    # Measured once, with as many detections as the one that asks for the most.
    assert json.loads(jobs.detect(wildcards()))["settings"] == {"max_per_image": 250}
    assert json.loads(jobs.detect(wildcards(seed="1")))["settings"] == {"max_per_image": 300}


def test_stages_accept_what_they_measure_with():
    from gen4det.stages._aesthetic import RatingSettings
    from gen4det.stages.detect import DetectStageSettings
    from gen4det.stages.filter_page import FilterPageSettings

    jobs = filtered()
    for name in ("rate", "calibrate"):
        RatingSettings.model_validate(json.loads(getattr(jobs, name)(wildcards()))["settings"])
    DetectStageSettings.model_validate(json.loads(jobs.detect(wildcards()))["settings"])
    FilterPageSettings.model_validate(json.loads(jobs.filter_page(wildcards()))["settings"])


def test_the_detector_that_a_filter_asks_is_trained_even_if_no_table_shows_it():
    other = read_yaml(ROOT / "config/config.yaml")["detectors"]["mask-rcnn"] | {"iterations": 7}
    detectors = {
        "mask-rcnn": read_yaml(ROOT / "config/config.yaml")["detectors"]["mask-rcnn"],
        "other": other,
    }
    jobs = filtered({"agreement": {"enabled": True, "detector": "other"}}, detectors=detectors)
    asked = wildcards(detector="other", arm="real")
    assert json.loads(jobs.train(asked))["settings"]["detector"]["iterations"] == 7
    assert jobs.synthetic_sets(asked) == []
    assert re.fullmatch(jobs.names("arm"), "real")


def test_bad_input_is_refused_filters_that_refer_to_nothing():
    with pytest.raises(
        InputError, match="mosaicfusion.filter.agreement.detector: 'mask-rcn' is not a detector"
    ):
        filtered({"agreement": {"enabled": True, "detector": "mask-rcn"}})
    models = {name: MODELS[name] for name in ("diffusion", "clip")}
    with pytest.raises(InputError, match="mosaicfusion.filter.aesthetic: needs foundation.aesthetic"):
        filtered(foundation=models)


# --- the miniature's foundation models ----------------------------------------------------------------


def part(name: str) -> SimpleNamespace:
    return SimpleNamespace(part=name)


def test_a_setting_of_a_part_of_the_foundation_models_makes_that_part_again():
    before = changed().foundation
    after = changed(foundation_training={"diffusion_steps": 7}).foundation
    differ = [name for name in before.parts() if before.job(part(name)) != after.job(part(name))]
    both = changed(foundation_training={"category_weights": {"key": 3.0}}).foundation
    shown = [name for name in before.parts() if before.job(part(name)) != both.job(part(name))]
    assert differ == ["diffusion"] and shown == ["diffusion", "inpainting"]
    assert before.job(SimpleNamespace()) == after.job(SimpleNamespace())
    assert after.reads(part("inpainting")) == ["results/foundation/diffusion/result"]
    assert "results/foundation/clip/losses.png" in after.reads(SimpleNamespace())


def test_the_parameter_of_a_part_has_what_it_reads_beside_its_inputs(tmp_path):
    weights = {name: MODELS["diffusion"]["path"] for name in ("diffusion_start", "inpainting_parent")}
    weights["inpainting_start"] = "resources/miniature/gligen-inpainting"
    foundation = changed(foundation_training=weights).foundation
    files = {name: json.loads(foundation.job(part(name)))["files"] for name in foundation.parts()}
    assert files["diffusion"].keys() == {MODELS["diffusion"]["path"]} and all(files["diffusion"].values())
    assert files["inpainting"].keys() == set(weights.values())
    assert files["backbone"].keys() == {"config/detectors/miniature_mask_rcnn.py"}
    assert not files["autoencoder"] and not files["corpus"]
