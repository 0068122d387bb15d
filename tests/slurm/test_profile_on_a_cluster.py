"""The profile on a real Slurm: the table comes out, and jobs asked for what the rules say."""

import csv

import pytest
from cluster_runs import jobs_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def jobs(finished) -> dict[str, list]:
    """Jobs in Slurm's accounting by the rule, or the group of a rule, that their comment names."""
    found: dict[str, list] = {}
    for job in jobs_of(finished):
        found.setdefault(job.comment.removeprefix("rule_").partition("_wildcards")[0], []).append(job)
    return found


def test_the_table_comes_out(finished):
    with open(finished / "results/test/tables/lvis_rare.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} == {"real", "mosaicfusion"}
    assert {row["seeds"] for row in rows} == {"1/1"}


def test_every_job_ran_in_slurm_and_once(jobs):
    counts = {rule: len(of_rule) for rule, of_rule in jobs.items()}
    assert counts == {
        "render": 1, "plan": 1, "shards_generate": 1, "filter": 1, "train": 2,
        "predict": 2, "measure": 2, "table": 1,
    }  # fmt: skip
    assert {job.state for of_rule in jobs.values() for job in of_rule} == {"COMPLETED"}


def test_jobs_asked_for_what_the_rules_say(jobs):
    for rule, (partition, cpus, megabytes, gpus, minutes) in {
        "render": ("cpu", 1, 1000, 0, 10),
        "filter": ("cpu", 1, 1000, 0, 10),
        "train": ("gpu", 2, 2500, 1, 20),
        "predict": ("gpu", 2, 2500, 1, 20),
        "measure": ("cpu", 1, 2000, 0, 20),
    }.items():
        for job in jobs[rule]:
            assert (job.partition, job.cpus, job.gpus, job.minutes) == (partition, cpus, gpus, minutes)
            assert megabytes <= job.megabytes < megabytes + 10  # and what the annotations take


def test_two_shards_share_an_allocation_of_one_gpu(jobs, finished):
    (job,) = jobs["shards_generate"]
    assert (job.partition, job.gpus, job.minutes) == ("gpu", 1, 2 * 10)
    shards = finished / "results/test/synthetic/lvis/mosaicfusion/shards"
    assert {path.name for path in shards.iterdir() if path.suffix == ".zip"} == {"00000.zip", "00001.zip"}
    assert not list(shards.glob("*.work"))


def test_a_second_run_finds_nothing_to_do(finished):
    assert not finished.planned("results/test/tables/lvis_rare.csv")
