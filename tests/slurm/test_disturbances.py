"""Promise: nothing is lost, nothing is done twice, and the bytes are those of an undisturbed run."""

import os
import shutil
import signal
import time
from collections import Counter

import pytest
from cluster_runs import ANNOTATIONS, SHARDS, batches, jobs_of
from local_cluster import call, wait_for

from checkouts import CONFIG, copy_checkout, running
from patience import patience

pytestmark = [pytest.mark.workflow, pytest.mark.disturbance]
FILES = (
    ANNOTATIONS,
    *(f"{SHARDS}/{name}.{suffix}" for name in ("00000", "00001") for suffix in ("zip", "arrow")),
)


def assert_undisturbed(checkout, drawn, files=FILES) -> None:
    """Same bytes; each batch finished once; no two at the same time."""
    for file in files:
        assert (checkout / file).read_bytes() == (drawn / file).read_bytes(), file
    done = sorted((batch for batch in batches(checkout) if batch.end), key=lambda batch: batch.begin)
    assert set(Counter(batch.number for batch in done).values()) == {1}
    for earlier, later in zip(done, done[1:], strict=False):
        assert earlier.end <= later.begin, (earlier, later)
    assert not list((checkout / SHARDS).glob("*.work"))


def finished_batches(checkout) -> int:
    return sum(batch.end is not None for batch in batches(checkout))


def slurm_state(number: str) -> str:
    return call("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T").strip()


def test_a_cancelled_job_is_noticed_and_goes_on(checkout, drawn):
    """In its default mode the plugin takes a cancelled job for a running one, for ever."""
    checkout.variables["SLOW_SECONDS"] = "4"
    with running(checkout, ANNOTATIONS) as run:
        run.wait_for(lambda: finished_batches(checkout) == 3)  # the first shard of the allocation is complete
        call("scancel", batches(checkout)[0].job)
        assert run.ends() == 0, run.text()[-4000:]
    states = [job.state for job in jobs_of(checkout) if "generate" in job.comment]
    assert states == ["CANCELLED", "COMPLETED"]
    assert_undisturbed(checkout, drawn)


def test_a_job_beyond_its_time_limit_goes_on_in_segments(checkout, drawn):
    checkout.variables["SLOW_HANG"] = str(checkout / "hung")
    shard = f"{SHARDS}/00000.zip"
    with running(checkout, "--set-resources", "generate:runtime=1", "--", shard) as run:
        assert run.ends() == 0, run.text()[-4000:]
    # killed; ended itself in time with a batch saved; done
    assert [job.state for job in jobs_of(checkout)] == ["TIMEOUT", "FAILED", "COMPLETED"]
    assert [batch.number for batch in batches(checkout)] == [0, 0, 2]
    assert_undisturbed(checkout, drawn, [shard])


def test_a_job_out_of_memory_gets_more(checkout, drawn):
    checkout.edit(CONFIG, "generate: {threads: 2, mem_mb: 1500", "generate: {threads: 2, mem_mb: 1000")
    checkout.variables |= {"SLOW_MEGABYTES": "900", "SLOW_SECONDS": "8"}
    with running(checkout, ANNOTATIONS) as run:
        assert run.ends() == 0, run.text()[-4000:]
    jobs = [job for job in jobs_of(checkout) if "generate" in job.comment]
    assert [job.state == "COMPLETED" for job in jobs] == [False, True]
    assert jobs[0].megabytes < 1010 and jobs[1].megabytes >= 1500
    assert_undisturbed(checkout, drawn)


def test_a_node_daemon_that_restarts_is_not_noticed(cluster, checkout, drawn):
    checkout.variables["SLOW_SECONDS"] = "4"
    with running(checkout, ANNOTATIONS) as run:
        run.wait_for(lambda: finished_batches(checkout) == 1)
        cluster.stop_node("gpu1")
        time.sleep(3)
        cluster.start_node("gpu1")
        assert run.ends() == 0, run.text()[-4000:]
    assert len({batch.job for batch in batches(checkout)}) == 1
    assert_undisturbed(checkout, drawn)


def test_an_outage_of_the_controller_is_waited_for(cluster, checkout, drawn):
    """When all attempts of one query fail, the plugin forgets its jobs: the profile has attempts enough."""
    checkout.variables["SLOW_SECONDS"] = "12"
    with running(checkout, ANNOTATIONS) as run:
        run.wait_for(lambda: finished_batches(checkout) == 1)
        cluster.stop_controller()
        time.sleep(30)
        cluster.start_controller()
        assert run.ends() == 0, run.text()[-4000:]
    assert_undisturbed(checkout, drawn)  # an allocation whose next shard begins in the outage is retried


def test_ctrl_c_ends_the_jobs_and_the_next_call_goes_on(checkout, drawn):
    """The second batch is held until Slurm has ended the job: nothing but a cancellation ends it."""
    gate = checkout / "gate"
    checkout.variables["SLOW_GATE"] = str(gate)
    with running(checkout, ANNOTATIONS) as run:
        run.wait_for(lambda: [batch.end is None for batch in batches(checkout)] == [False, True])
        (number,) = {batch.job for batch in batches(checkout)}
        assert slurm_state(number) == "RUNNING"
        run.process.send_signal(signal.SIGINT)
        assert run.ends() != 0
        assert "Unable to cancel" not in run.text()  # the plugin gives scancel a minute
    wait_for(lambda: slurm_state(number) not in ("RUNNING", "COMPLETING"), patience(240), "the cancelled job")
    assert slurm_state(number) == "CANCELLED"
    assert not (checkout / f"{SHARDS}/00000.zip").exists()
    gate.touch()
    checkout.make(ANNOTATIONS)
    assert_undisturbed(checkout, drawn)


def test_jobs_of_a_killed_driver_are_ended_before_the_next_call_submits_them(checkout, drawn):
    checkout.variables["SLOW_SECONDS"] = "20"
    with running(checkout, ANNOTATIONS) as run:
        run.wait_for(lambda: finished_batches(checkout) == 1)
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
    (number,) = {batch.job for batch in batches(checkout)}
    assert slurm_state(number) == "RUNNING"
    refused = checkout.run(ANNOTATIONS)
    assert refused.returncode != 0 and "was killed" in refused.stdout and "unlock" in refused.stdout
    assert slurm_state(number) == "RUNNING"  # a call that is refused ends nothing
    checkout.make("--unlock")
    checkout.variables["SLOW_SECONDS"] = "0"
    assert f"left 1 jobs in Slurm ({number})" in checkout.make(ANNOTATIONS)
    assert_undisturbed(checkout, drawn)


def test_a_cancelled_training_gives_the_same_table(finished, cluster, tmp_path):
    checkout = copy_checkout(finished, tmp_path / "checkout")
    detector = checkout / "results/test/detectors/lvis/mask-rcnn/mosaicfusion"
    shutil.rmtree(detector)
    table = "results/test/tables/lvis_rare.csv"
    (checkout / table).unlink()
    log = checkout / "results/test/logs/train/lvis/mask-rcnn/mosaicfusion/seed0.log"
    log.unlink()
    with running(checkout, table) as run:
        run.wait_for(lambda: log.exists() and "training:" in log.read_text())
        call("scancel", *[job.number for job in jobs_of(checkout) if job.state == "RUNNING"])
        assert run.ends(900) == 0, run.text()[-4000:]
    assert [job.state for job in jobs_of(checkout) if "rule_train" in job.comment] == [
        "CANCELLED",
        "COMPLETED",
    ]
    for file in (table, "results/test/detectors/lvis/mask-rcnn/mosaicfusion/seed0/weights.safetensors"):
        assert (checkout / file).read_bytes() == (finished / file).read_bytes()
    cluster.cancel_all()
