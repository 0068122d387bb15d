"""`make why` says for each result that is not up to date the reason, in words."""

import re
import shutil
import subprocess
import sys

import pytest

from patience import patience

pytestmark = pytest.mark.workflow

TABLE = "results/test/tables/lvis_rare.csv"


def why(checkout, *targets: str) -> dict[str, list[str]]:
    """Reasons by result."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gen4det.orchestration.why",
            "--configfile",
            "config/test.yaml",
            "--",
            *targets,
        ],
        cwd=checkout.folder,
        env=checkout.environment() | {"PYTHONPATH": str(checkout / "workflow")},
        capture_output=True,
        text=True,
        timeout=patience(600),
    )
    assert done.returncode == 0, done.stderr
    paragraphs = filter(None, re.split(r"^(?! )", done.stdout, flags=re.MULTILINE))
    return {lines[0]: [line.strip() for line in lines[1:]] for lines in map(str.splitlines, paragraphs)}


def test_nothing_is_stale_after_a_run(finished):
    assert why(finished) == {"Everything is up to date.": []}


def test_each_change_is_named_where_it_strikes_and_what_follows_from_it(checkout):
    checkout.edit("config/studies/lvis_rare.yaml", "metrics: [mask_APr,", "metrics: [mask_AP50, mask_APr,")
    checkout.edit("config/test.yaml", "iterations: 6", "iterations: 7")
    with open(checkout / "workflow/gen4det/evaluation/average_precision.py", "a") as stream:
        stream.write("CHANGED = True\n")
    folder = "results/test/detectors/lvis/mask-rcnn/real/seed0"
    stale = why(checkout, TABLE)
    assert stale[f"{folder}/weights.safetensors (train)"] == ["settings.detector.iterations: 6 -> 7"]
    assert stale[f"{folder}/lvis/predictions.npz (predict)"] == [
        f"made again before it: {folder}/weights.safetensors"
    ]
    assert stale[f"{folder}/lvis/metrics.json (measure)"] == [
        "its code has changed: gen4det.evaluation.average_precision",
        f"made again before it: {folder}/lvis/predictions.npz",
    ]
    metrics, made = stale[f"{TABLE} (table)"]
    assert metrics.startswith('settings.metrics: ["mask_APr"') and '-> ["mask_AP50", "mask_APr"' in metrics
    assert made.startswith("made again before it: results/test/detectors/")
    assert not [result for result in stale if "synthetic/lvis/mosaicfusion" in result]


def test_what_a_run_left_behind_half_way_is_named(checkout):
    checkout.edit("config/test.yaml", "iterations: 6", "iterations: 7")
    folder = "results/test/detectors/lvis/mask-rcnn/real/seed0"
    checkout.make(f"{folder}/weights.safetensors")
    stale = why(checkout, f"{folder}/lvis/predictions.npz")
    assert stale == {f"{folder}/lvis/predictions.npz (predict)": ["made from other results of train"]}


def test_results_without_records_are_adopted_or_named(checkout):
    shutil.rmtree(checkout / ".snakemake/metadata")
    weights = "results/test/detectors/lvis/mask-rcnn/real/seed0/weights.safetensors"
    assert why(checkout) == {"Everything is up to date.": []}
    checkout.edit("config/test.yaml", "iterations: 6", "iterations: 7")
    unknown = why(checkout)
    reasons = unknown[f"{weights} (train), unknown to Snakemake, which keeps it"]
    assert reasons == ["settings.detector.iterations: 6 -> 7"]
    checkout.edit("config/test.yaml", "iterations: 7", "iterations: 6")
    (checkout / TABLE).unlink()
    assert "Note: " not in checkout.make()  # one job to do, and all others are recorded on the way
    checkout.edit("config/test.yaml", "iterations: 6", "iterations: 7")
    assert why(checkout, weights) == {f"{weights} (train)": reasons}


def test_what_is_missing_is_said(checkout):
    (checkout / TABLE).unlink()
    assert why(checkout, TABLE) == {f"{TABLE} (table)": ["not there yet"]}
