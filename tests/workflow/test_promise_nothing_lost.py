"""Promise: nothing is lost. Killed jobs go on where they stopped and end with the same bytes."""

import os
import re
import shutil
import signal
import time

import pytest

from checkouts import running

pytestmark = pytest.mark.workflow
SHARD = "results/test/synthetic/lvis/mosaicfusion/shards/00000"
DETECTOR = "results/test/detectors/lvis/mask-rcnn/real/seed0"


def start_anew(checkout, *results: str) -> None:
    for result in results:
        for path in checkout.folder.glob(f"{result}*"):
            if path.is_file():
                path.unlink()


def test_killed_generation_resumes_inside_the_shard_with_the_same_bytes(finished, checkout):
    start_anew(checkout, f"{SHARD}.")
    batches = checkout / f"{SHARD}.work"
    with running(checkout, f"{SHARD}.zip") as run:
        run.wait_for(lambda: list(batches.glob("*[0-9].zip")))
    saved = {path.name: path.stat().st_mtime_ns for path in batches.glob("*[0-9].zip")}
    assert saved and not (checkout / f"{SHARD}.zip").exists()

    text = checkout.run(f"{SHARD}.zip").stdout
    assert "a run in this checkout was killed" in text and "make unlock" in text
    checkout.make("--unlock")
    checkout.make(f"{SHARD}.zip")
    for suffix in (".zip", ".arrow"):
        assert (checkout / (SHARD + suffix)).read_bytes() == (finished / (SHARD + suffix)).read_bytes()
    assert not batches.exists()


def test_terminated_training_saves_and_resumes_with_the_same_weights(finished, checkout):
    weights = f"{DETECTOR}/weights.safetensors"
    start_anew(checkout, weights)
    work = checkout / DETECTOR / "work"
    for delay in (0.5, 1.5, 3, 6):  # until the first of the few iterations is done
        shutil.rmtree(work, ignore_errors=True)
        with running(checkout, weights) as run:
            run.wait_for(lambda: "training:" in run.text())
            time.sleep(delay)
            os.killpg(run.process.pid, signal.SIGTERM)
            run.ends()
        if "stopped after iteration 0" not in run.text():
            break
    assert (work / "checkpoint.pt").exists() and not (checkout / weights).exists()
    log = run.text()
    assert "Traceback" not in log and "run the same command again" in log

    text = checkout.make(weights)
    assert int(re.search(r"training: +(\d+)%", text)[1]) > 0, "started from nothing"
    assert (checkout / weights).read_bytes() == (finished / weights).read_bytes()
    assert not work.exists()


def test_terminated_run_saves_what_is_finished(checkout):
    start_anew(checkout, f"{SHARD}.")
    batches = checkout / f"{SHARD}.work"
    with running(checkout, f"{SHARD}.zip") as run:
        run.wait_for(lambda: list(batches.glob("*[0-9].zip")))
        os.killpg(run.process.pid, signal.SIGTERM)
        run.ends()
    assert list(batches.glob("*[0-9].zip")) and not (checkout / f"{SHARD}.zip").exists()
    assert not list((checkout / SHARD).parent.glob(".*")), "half-written files are left"
    log = run.text()
    assert "Traceback" not in log and "run the same command again" in log


def test_a_second_run_in_the_same_checkout_is_refused_and_explained(checkout):
    start_anew(checkout, f"{SHARD}.")
    with running(checkout, f"{SHARD}.zip") as run:
        run.wait_for(lambda: (checkout / f"{SHARD}.work").exists())
        second = checkout.run(f"{SHARD}.zip")
        assert second.returncode != 0
        assert f"another run is at work in this checkout (process {run.process.pid}" in second.stdout
        assert "cannot be locked" in second.stdout
        assert "Traceback" not in second.stdout
