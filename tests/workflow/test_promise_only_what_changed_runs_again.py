"""Promise: only what changed runs again.

Most of it is a table of changes and of the jobs that a run would do after each, asked of Snakemake in this
process. A new kind of job is a new row. The tests after the table run Snakemake as its users do.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest
from PIL import Image
from planning import at_work_in, planned_here

import own_annotations
from checkouts import CONFIG, ROOT, Checkout, copy_repository
from gen4det.core.yaml_files import read_yaml

pytestmark = pytest.mark.workflow

STUDY = "config/studies/lvis_rare.yaml"
PAGES = Counter(table=1, figure=1, gallery=1)
TABLE = Counter(table=1, figure=1)
DETECTION = Counter(train=1, predict=1, measure=1, loss_curve=1)
"""Training, its curve, predictions and measures of one arm."""
DRAWING = Counter(plan=1, generate=2, filter=1)
SYNTHETIC = DRAWING + DETECTION + PAGES
"""All that depends on what MosaicFusion draws; the other arms do not."""
MEASURING = Counter(rate=2, detect=2, filter_page=1)
"""What Gen2Det's filters add."""
ASKING = Counter(detect=2, filter=1, filter_page=1)
"""What asks the detector of the real images, without the trainings."""
ALL = Counter(render=1) + SYNTHETIC + DETECTION + DRAWING + MEASURING + DETECTION
NOTHING = Counter()

Change = Callable[[Checkout], None]


def text(path: str, *edits: tuple[str, str]) -> Change:
    """Replace text in a file."""

    def change(checkout: Checkout) -> None:
        for old, new in edits:
            checkout.edit(path, old, new)

    return change


def more(path: str, added: str) -> Change:
    """Add text to a file."""

    def change(checkout: Checkout) -> None:
        with open(checkout / path, "a") as stream:
            stream.write(added)

    return change


def code(module: str) -> Change:
    """Change what a module does."""
    return more(f"workflow/gen4det/{module}.py", "\nCHANGED = True\n")


def looks(module: str) -> Change:
    """Change a module's layout, comments and docstrings."""

    def change(checkout: Checkout) -> None:
        path = checkout / f"workflow/gen4det/{module}.py"
        said, _, rest = path.read_text().partition('"""\n')
        path.write_text(said + ' And more.\n"""\n\n\n# a comment\n' + rest + '\n"""So it is."""\n')

    return change


def other_weights(path: str) -> Change:
    """Change one byte of a model, but neither its size nor its time."""

    def change(checkout: Checkout) -> None:
        weights = next((checkout / path).glob("*.safetensors"))
        content, before = bytearray(weights.read_bytes()), weights.stat()
        content[-1] ^= 1
        weights.write_bytes(content)
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))

    return change


def comments_in_environments(checkout: Checkout) -> None:
    for path in (checkout / "envs").iterdir():
        more(path.relative_to(checkout.folder), "# a comment\n")(checkout)


def another_detector(checkout: Checkout) -> None:
    entry = "  first:\n    config: config/detectors/miniature_mask_rcnn.py\n    iterations: 6\n"
    checkout.edit(CONFIG, "\ndetectors:\n", f"\ndetectors:\n{entry}")


LARGE = "\nmosaicfusion-large:\n  base: mosaicfusion\n  filter: {min_area_fraction: 0.05}\n"


def filter_variant(checkout: Checkout) -> None:
    more("config/engines/mosaicfusion.yaml", LARGE)(checkout)
    checkout.edit(STUDY, "\nmetrics:", "  large: {synthetic: [mosaicfusion-large]}\n\nmetrics:")
    checkout.edit(CONFIG, "mosaicfusion, gen2det]", "mosaicfusion, gen2det, large]")


EXPECTED: dict[str, tuple[Change, Counter]] = {
    "a column of the table": (text(STUDY, ("metrics: [mask_APr,", "metrics: [mask_AP50, mask_APr,")), TABLE),
    "the gallery": (more(STUDY, "\ngallery: {kept: 2}\n"), Counter(gallery=1)),
    "the code of tables": (code("evaluation/study_table"), PAGES),
    "more seeds": (
        text(CONFIG, ("seeds: [0]", "seeds: [0, 1, 2]")),
        Counter(train=6, predict=6, measure=6, loss_curve=6) + TABLE,
    ),
    "the code of a measure": (code("evaluation/average_precision"), Counter(measure=3) + TABLE),
    "the code of trainings": (
        code("detection/training"),
        Counter(train=3, predict=3, measure=3, loss_curve=3) + ASKING + PAGES,
    ),
    "the schedule of the detector": (
        text("config/detectors/miniature_mask_rcnn.py", ("weight_decay=1e-4", "weight_decay=2e-4")),
        Counter(train=3, predict=3, measure=3, loss_curve=3) + ASKING + PAGES,
    ),
    "another detector with equal settings": (another_detector, NOTHING),
    "a threshold": (text(CONFIG, ("min_iou: 0.0", "min_iou: 0.1")),
                    Counter(filter=1, filter_page=1) + DETECTION + PAGES),
    "a filter of labels": (
        text(CONFIG, ("drop_image: false\n", "drop_image: false\n    filter: {max_area_fraction: 0.9}\n")),
        Counter(filter=1) + DETECTION + PAGES,
    ),
    "a variant that differs in its filter": (filter_variant, Counter(filter=1) + DETECTION + PAGES),
    "the code that draws": (code("engines/mosaicfusion/draw"), SYNTHETIC - Counter(plan=1)),
    "the code that plans": (code("engines/mosaicfusion/plan"), SYNTHETIC),
    "a setting of an engine": (text(CONFIG, ("guidance: 4.0", "guidance: 5.0")), SYNTHETIC),
    # Snakemake compares parameters as a set without names: two loose ones could trade places unnoticed.
    "two settings swapped": (
        text(CONFIG, ("steps: 4", "steps: 3"), ("sigma_spatial: 3", "sigma_spatial: 4")),
        SYNTHETIC,
    ),
    "the number of shards": (
        text(CONFIG, ("shards: 2", "shards: 3")),
        ALL - Counter(render=1, plan=2, train=1, predict=1, measure=1, loss_curve=1)
        + Counter(generate=2, rate=1, detect=1),
    ),
    "a model": (other_weights("resources/miniature/stable-diffusion/unet"), SYNTHETIC),
    "a model that nothing uses": (other_weights("resources/miniature/backbone"), NOTHING),
    "the model that rates images": (
        more("resources/miniature/clip/config.json", " "),
        Counter(rate=2, filter=1, filter_page=1) + DETECTION + PAGES,
    ),
    "the data": (text(CONFIG, ("val_images: 12", "val_images: 13")), ALL),
    "what a job needs": (
        more(CONFIG, "\nneeds: {train: {threads: 1, mem_mb: 9000, runtime: 7}, generate: {gpu: 1}}\n"),
        NOTHING,
    ),
    "comments in environments": (comments_in_environments, NOTHING),
    "comments and layout of an engine": (looks("engines/mosaicfusion/draw"), NOTHING),
    "comments and layout of what all jobs import": (looks("core/provenance"), NOTHING),
}  # fmt: skip
"""What is changed, how, and what then runs."""


@pytest.mark.parametrize("name", EXPECTED)
def test_a_change_and_what_runs_again(checkout, name):
    change, expected = EXPECTED[name]
    change(checkout)
    assert planned_here(checkout) == expected


def test_each_job_says_what_its_inputs_are_made_from(finished):
    """Whichever rule is added: its parameter follows those of the jobs before it, or times would have to."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    config = ConfigSettings(configfiles=[finished / CONFIG])
    with at_work_in(finished), SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=1), config)
        workflow.dag(DAGSettings(force_incomplete=True)).execute_workflow("dryrun")
        dag = workflow._workflow.dag
        jobs = [job for job in dag.jobs if job.output]
        assert len(jobs) > 20
        for job in jobs:
            made_from = json.loads(job.params["job"]).get("made_from", {})
            assert made_from.keys() == {maker.rule.name for maker in dag.dependencies[job]}, job


# --- as users run it --------------------------------------------------------------------------------------


def test_editing_the_table_makes_the_table(checkout):
    EXPECTED["a column of the table"][0](checkout)
    assert checkout.planned() == TABLE
    checkout.make()
    assert "mask_AP50" in (checkout / "results/test/tables/lvis_rare.csv").read_text()
    assert not checkout.planned()


def test_editing_mosaicfusion_draws_mosaicfusion_again(checkout):
    EXPECTED["the code that plans"][0](checkout)
    assert checkout.planned() == SYNTHETIC


def test_an_engine_that_no_arm_uses_draws_nothing(checkout):
    room = checkout / "workflow/gen4det/engines/idle"
    shutil.copytree(ROOT / "tests/slurm/slow_engine", room)
    settings = (room / "settings.py").read_text().replace('"slow"', '"idle"')
    (room / "settings.py").write_text(settings)
    (checkout / "config/engines/idle.yaml").write_text("idle:\n  method: idle\n  images: 8\n")
    assert not checkout.planned()


def test_what_follows_a_change_is_made_though_the_run_ended_half_way(checkout):
    """The data are as they should be, but nothing that was made from the former ones is."""
    EXPECTED["the data"][0](checkout)
    checkout.make("results/test/data/lvis/dataset.json")
    assert planned_here(checkout) == ALL - Counter(render=1)


def test_touching_all_sources_and_results_reruns_nothing(checkout):
    """Above a megabyte Snakemake itself knows nothing but times."""
    archive = checkout / "results/test/data/lvis/train.zip"
    with open(archive, "ab") as stream:
        stream.write(bytes(2 * 10**6))
    for folder in ("config", "workflow", "resources", "local", "slurm", "envs", "results"):
        for path in (checkout / folder).rglob("*"):
            os.utime(path)
    os.utime(checkout / "Snakefile")
    os.utime(archive, (2**31, 2**31))
    assert not checkout.planned()


def test_results_copied_without_times_or_records_are_taken_as_they_are(finished, tmp_path):
    (tmp_path / "clone").mkdir()
    clone = copy_repository(tmp_path / "clone", finished / CONFIG)
    subprocess.run(["cp", "-r", str(finished / "results"), str(clone / "results")], check=True)
    for path in sorted((clone / "results").rglob("*"), reverse=True):
        os.utime(path)  # what was made first is the newest
    assert not planned_here(clone)
    (clone / ".snakemake").mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", str(finished / ".snakemake/metadata"), str(clone / ".snakemake")], check=True)
    assert not clone.planned()
    EXPECTED["the code that plans"][0](clone)
    assert planned_here(clone) == SYNTHETIC


def test_an_own_annotation_file_counts_with_its_contents(fresh):
    """Also above a megabyte, touched, copied and restored, edited without a trace in size and times."""
    folder = fresh / "photographs"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (96, 72), (90 * number, 0, 0)).save(folder / f"{split}/{number}.png")
        square = {"bbox": [8, 8, 24, 24], "segmentation": [[8, 8, 32, 8, 32, 32, 8, 32]], "area": 576}
        (folder / f"{split}.json").write_text(
            json.dumps(
                {
                    "images": [
                        {"id": n, "file_name": f"{n}.png", "width": 96, "height": 72} for n in range(3)
                    ],
                    "annotations": [
                        {"id": n + 1, "image_id": n, "category_id": 1, "iscrowd": 0, **square}
                        for n in range(3)
                    ],
                    "categories": [{"id": 1, "name": "mug"}],
                    "remark": "x" * 1_500_000,
                }
            )
        )
    splits = {split: {"annotations": f"photographs/{split}.json", "images": f"photographs/{split}"}
              for split in ("train", "val")}  # fmt: skip
    values = read_yaml(fresh / CONFIG)
    values["datasets"]["lvis"] = {"source": "photographs", "format": "lvis", **splits}
    (fresh / CONFIG).write_text(json.dumps(values))
    plan = "results/test/synthetic/lvis/gen2det/manifest.jsonl"
    fresh.make(plan)
    own = folder / "train.json"
    backup = own.read_bytes()
    os.utime(own)
    assert not planned_here(fresh, plan)
    own.unlink()
    own.write_bytes(backup)
    assert not planned_here(fresh, plan)
    before = own.stat()
    own.write_bytes(backup.replace(b'"id": 3', b'"id": 4'))
    os.utime(own, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert planned_here(fresh, plan) == Counter(photographs=1, plan=1)


def test_an_exchanged_photograph_runs_everything_and_a_touched_one_nothing(fresh):
    folder = own_annotations.write(fresh / "photographs")
    values = read_yaml(fresh / CONFIG)
    places = {split: {"annotations": f"photographs/{split}.json", "images": f"photographs/{split}"}
              for split in ("train", "val")}  # fmt: skip
    values["datasets"]["lvis"] = {"source": "photographs", "format": "lvis", **places}
    (fresh / CONFIG).write_text(json.dumps(values))
    plan = "results/test/synthetic/lvis/gen2det/manifest.jsonl"
    fresh.make(plan)
    assert not planned_here(fresh, plan)
    os.utime(folder / "train/train3.png")
    assert not planned_here(fresh, plan)
    (folder / "train/train3.png").write_bytes((folder / "train/train4.png").read_bytes())
    assert planned_here(fresh, plan) == Counter(photographs=1, plan=1)
    fresh.make(plan)
    assert not planned_here(fresh, plan)
