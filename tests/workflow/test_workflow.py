"""The workflow from nothing to the table, on a tiny budget: what is made, and what is there to see."""

import json
from pathlib import Path

import pandas
import pytest

pytestmark = pytest.mark.workflow

ROOT = Path(__file__).parents[2]
RESULTS = "results/test"


def test_everything_is_made(finished):
    tables = [f"tables/lvis_rare{suffix}" for suffix in (".csv", ".md", ".html", ".tex")]
    figures = [f"figures/lvis_rare{page}{suffix}" for page in ("", "_gallery") for suffix in (".pdf", ".png")]
    for name in tables + figures:
        assert (finished / RESULTS / name).stat().st_size > 0
    table = pandas.read_csv(finished / RESULTS / "tables/lvis_rare.csv")
    assert list(table["arm"]) == ["real", "mosaicfusion", "gen2det"]


def test_every_number_has_a_pedigree(finished):
    results = [
        *(finished / RESULTS).glob("data/*/dataset.json"),
        *(finished / RESULTS).glob("synthetic/*/*/set.json"),
        *(finished / RESULTS).glob("detectors/*/*/*/*/weights.safetensors"),
        *(finished / RESULTS).glob("detectors/*/*/*/*/*/predictions.npz"),
        *(finished / RESULTS).glob("detectors/*/*/*/*/*/metrics.json"),
        *(finished / RESULTS).glob("tables/*.csv"),
        *(finished / RESULTS).glob("figures/*.pdf"),
    ]
    assert len(results) == 1 + 2 + 3 + 3 + 3 + 1 + 2
    for result in results:
        record = json.loads(result.with_name(result.name + ".record.json").read_text())
        assert {
            "settings",
            "code",
            "packages",
            "device",
            "seeds",
            "wall_seconds",
            "peak_memory_mib",
        } <= record.keys()


def test_from_a_cell_of_the_table_back_to_the_images(finished):
    def inputs(path):
        return json.loads((finished / f"{path}.record.json").read_text())["inputs"]

    metrics = next(path for path in inputs(f"{RESULTS}/tables/lvis_rare.csv") if "mosaicfusion" in path)
    predictions = next(path for path in inputs(metrics) if path.endswith("predictions.npz"))
    weights = next(path for path in inputs(predictions) if path.endswith(".safetensors"))
    annotations = next(path for path in inputs(weights) if path.endswith("mosaicfusion/set.json"))
    shards = [path for path in inputs(annotations) if "/shards/" in path]
    assert len(shards) == 2
    for shard in shards:
        record = json.loads((finished / shard.replace(".arrow", ".record.json")).read_text())
        assert any(path.endswith("manifest.jsonl") for path in record["inputs"])


def test_each_job_has_a_log_without_carriage_returns_and_a_benchmark(finished):
    logs = sorted((finished / RESULTS / "logs").rglob("*.log"))
    benchmarks = sorted((finished / RESULTS / "benchmarks").rglob("*.tsv"))
    assert len(logs) == len(benchmarks) == 29
    assert not [log for log in logs if b"\r" in log.read_bytes()]


def test_progress_is_on_the_screen_and_in_the_log(finished):
    screen = (finished / "run.log").read_text()
    log = next((finished / RESULTS / "logs/train").rglob("*.log")).read_text()
    lines = [line for line in log.splitlines() if line.strip()]
    assert lines and all(line in screen for line in lines)


def test_a_second_run_finds_nothing_to_do(finished):
    assert "Nothing to be done" in finished.make()
    assert not finished.planned()


@pytest.mark.parametrize("name", ["config", "paper", "photographs"])
def test_a_dry_run_of_each_scale_works_on_any_machine(fresh, name):
    text = fresh.make("--dry-run", "--configfile", f"config/{name}.yaml", "--")
    assert "table" in text and "This was a dry-run" in text


def test_a_report_can_be_made(finished):
    finished.make("--report", "report.zip")
    assert (finished / "report.zip").stat().st_size > 0


def test_snakemake_lint_is_content(finished):
    assert "good condition" in finished.run("--lint").stdout


def test_the_local_profile_has_no_software_environment_trigger():
    assert (
        "software-env"
        not in (ROOT / "local/profile.yaml").read_text().partition("rerun-triggers:")[2].split("\n")[0]
    )
