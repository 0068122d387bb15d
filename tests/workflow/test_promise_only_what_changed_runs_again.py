"""Promise: only what changed runs again. Each test is a change and the jobs that a run would do after it."""

import os
import shutil
import subprocess
from collections import Counter

import pytest

from checkouts import ROOT, copy_repository

pytestmark = pytest.mark.workflow

STUDY = "config/studies/lvis_rare.yaml"
CONFIG = "config/test.yaml"
PAGES = Counter(table=1, figure=1, gallery=1)
DETECTION = Counter(train=1, predict=1, measure=1)
"""Training, predictions and measures of one arm."""
DRAWING = Counter(plan=1, generate=2, filter=1)
SYNTHETIC = DRAWING + DETECTION + PAGES
"""All that depends on what MosaicFusion draws; the other arms do not."""
MEASURING = Counter(rate=2, detect=2, filter_page=1)
"""What Gen2Det's filters add."""


def package(module: str) -> str:
    return f"workflow/gen4det/{module}.py"


def append(checkout, path: str, text: str = "\n# a change\n") -> None:
    with open(checkout / path, "a") as stream:
        stream.write(text)


def test_touching_all_sources_reruns_nothing(checkout):
    for folder in ("config", "workflow", "resources", "local", "slurm", "envs"):
        for path in (checkout / folder).rglob("*"):
            os.utime(path)
    os.utime(checkout / "Snakefile")
    assert not checkout.planned()


def test_editing_the_table_makes_the_table(checkout):
    checkout.edit(STUDY, "metrics: [mask_APr,", "metrics: [mask_AP50, mask_APr,")
    assert checkout.planned() == Counter(table=1, figure=1)
    checkout.make()
    assert "mask_AP50" in (checkout / "results/test/tables/lvis_rare.csv").read_text()
    assert not checkout.planned()


def test_editing_the_gallery_makes_the_gallery(checkout):
    append(checkout, STUDY, "\ngallery: {kept: 2}\n")
    assert checkout.planned() == Counter(gallery=1)


def test_editing_the_code_of_tables_retrains_nothing(checkout):
    append(checkout, package("evaluation/study_table"))
    assert checkout.planned() == PAGES


def test_a_changed_measure_measures_and_predicts_nothing(checkout):
    append(checkout, package("evaluation/average_precision"), "\nCHANGED = True\n")
    assert checkout.planned() == Counter(measure=3, table=1, figure=1)


def test_editing_the_training_retrains_and_draws_nothing(checkout):
    append(checkout, package("detection/training"))
    planned = checkout.planned()
    assert planned["train"] == 3 and not planned.keys() & {"render", "plan", "generate", "rate", "calibrate"}
    assert planned["detect"] == 2 and planned["filter"] == 1  # a filter asks the detector of real images


def test_changing_a_threshold_measures_nothing_again(checkout):
    checkout.edit(CONFIG, "min_iou: 0.0", "min_iou: 0.1")
    assert checkout.planned() == Counter(filter=1, filter_page=1) + DETECTION + PAGES


def test_editing_mosaicfusion_draws_mosaicfusion_again(checkout):
    append(checkout, package("engines/mosaicfusion/engine"))
    assert checkout.planned() == SYNTHETIC


def test_changing_a_setting_of_mosaicfusion_draws_mosaicfusion_again(checkout):
    checkout.edit(CONFIG, "guidance: 4.0", "guidance: 5.0")
    assert checkout.planned() == SYNTHETIC


def test_changing_the_filter_draws_nothing(checkout):
    checkout.edit(
        CONFIG, "    drop_image: false\n", "    drop_image: false\n    filter: {max_area_fraction: 0.9}\n"
    )
    assert checkout.planned() == Counter(filter=1) + DETECTION + PAGES


def test_swapping_two_values_is_a_change(checkout):
    """Snakemake compares parameters as a set without names: two loose ones could trade places unnoticed."""
    checkout.edit(CONFIG, "steps: 4", "steps: 3")
    checkout.edit(CONFIG, "sigma_spatial: 3", "sigma_spatial: 4")
    assert checkout.planned() == SYNTHETIC


def test_an_engine_that_no_arm_uses_draws_nothing(checkout):
    room = checkout / "workflow/gen4det/engines/idle"
    shutil.copytree(ROOT / "tests/slurm/slow_engine", room)
    settings = (room / "settings.py").read_text().replace('"slow"', '"idle"')
    (room / "settings.py").write_text(settings)
    (checkout / "config/engines/idle.yaml").write_text("idle:\n  method: idle\n")
    assert not checkout.planned()
    append(checkout, package("engines/idle/engine"))
    append(checkout, package("engines/idle/settings"))
    append(checkout, "config/engines/idle.yaml", "  images: 8\n")
    assert not checkout.planned()


def test_a_comment_in_an_environment_reruns_nothing(checkout):
    for path in (checkout / "envs").iterdir():
        append(checkout, path.relative_to(checkout.folder), "# a comment\n")
    assert not checkout.planned()


def test_results_copied_into_a_fresh_clone_are_taken_as_they_are(finished, tmp_path):
    (tmp_path / "clone").mkdir()
    clone = copy_repository(tmp_path / "clone", finished / CONFIG)
    for path in [path for path in clone.folder.rglob("*") if path.is_file()]:
        os.utime(path)  # what git writes is new
    (clone / ".snakemake").mkdir()
    for part in ("results", ".snakemake/metadata"):
        subprocess.run(["cp", "-a", str(finished / part), str(clone / part)], check=True)
    assert not clone.planned()
    append(clone, package("engines/mosaicfusion/engine"))
    assert clone.planned() == SYNTHETIC


def test_changing_a_model_draws_again_and_an_unused_one_does_not(checkout):
    weights = next((checkout / "resources/miniature/stable-diffusion/unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    original = weights.stat()
    weights.write_bytes(content)
    os.utime(weights, ns=(original.st_atime_ns, original.st_mtime_ns))
    assert checkout.planned() == SYNTHETIC
    content[-1] ^= 1
    weights.write_bytes(content)
    append(checkout, "resources/miniature/backbone/model.safetensors", "not used at this scale")
    assert not checkout.planned()
    append(checkout, "resources/miniature/clip/config.json", " ")
    planned = checkout.planned()
    assert planned["rate"] == 2 and not planned.keys() & {"plan", "generate", "detect"}


def test_changing_the_data_runs_everything(checkout):
    checkout.edit(CONFIG, "val_images: 12", "val_images: 13")
    assert checkout.planned() == Counter(render=1) + SYNTHETIC + DETECTION + DRAWING + MEASURING + DETECTION


def test_changing_the_number_of_shards_draws_all_shards(checkout):
    checkout.edit(CONFIG, "shards: 2", "shards: 3")
    assert checkout.planned()["generate"] == 2 * 3


def test_changing_the_schedule_of_the_detector_retrains(checkout):
    checkout.edit("config/detectors/miniature_mask_rcnn.py", "weight_decay=1e-4", "weight_decay=2e-4")
    planned = checkout.planned()
    assert planned["train"] == 3 and "generate" not in planned


def test_more_seeds_train_the_new_ones_only(checkout):
    planned = checkout.planned("--config", "seeds=[0,1,2]", "--")
    assert planned == Counter(train=6, predict=6, measure=6, table=1, figure=1)


def test_what_a_job_needs_is_no_reason_to_run_it_again(checkout):
    append(checkout, CONFIG, "\nneeds: {train: {threads: 1, mem_mb: 9000, runtime: 7}, generate: {gpu: 1}}\n")
    assert not checkout.planned()


def test_a_variant_that_differs_only_in_its_filter_shares_the_images(checkout):
    append(checkout, "config/engines/mosaicfusion.yaml",
           "\nmosaicfusion-large:\n  base: mosaicfusion\n  filter: {min_area_fraction: 0.05}\n")  # fmt: skip
    checkout.edit(STUDY, "\nmetrics:", "  large: {synthetic: [mosaicfusion-large]}\n\nmetrics:")
    assert checkout.planned() == Counter(filter=1) + DETECTION + PAGES
