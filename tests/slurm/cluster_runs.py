"""Runs on the cluster of the tests, looked up in Slurm's accounting and in what the slow engine notes."""

from dataclasses import dataclass
from pathlib import Path

from local_cluster import call

from checkouts import Checkout

ANNOTATIONS = "results/test/synthetic/lvis/slow/set.json"
SHARDS = "results/test/synthetic/lvis/slow/shards"


@dataclass(frozen=True)
class SlurmJob:
    """A job in Slurm's accounting."""

    number: str
    state: str
    partition: str
    cpus: int
    megabytes: int
    gpus: int
    minutes: int
    comment: str


def jobs_of(checkout: Checkout) -> list[SlurmJob]:
    """Jobs that runs in a checkout submitted, in order."""
    fields = "JobIDRaw,State,Partition,ReqTRES,TimelimitRaw,WorkDir,Comment"
    lines = call("sacct", "-X", "--noheader", "--parsable2", f"--format={fields}").splitlines()
    rows = [line.split("|") for line in lines]
    return [_job(row) for row in rows if Path(row[5]) == checkout.folder.resolve()]


def _job(row: list[str]) -> SlurmJob:
    number, state, partition, requested, minutes, _, comment = row
    trackable = dict(part.split("=") for part in requested.split(","))
    return SlurmJob(
        number, state.split()[0], partition, int(trackable["cpu"]), int(trackable["mem"].rstrip("M")),
        int(trackable.get("gres/gpu", 0)), int(minutes), comment,
    )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """A batch that the slow engine began."""

    number: int
    begin: float
    end: float | None
    """None: it was not finished."""
    job: str


def batches(checkout: Checkout) -> list[Batch]:
    """What the slow engine has begun, in order."""
    path = Path(checkout.variables["SLOW_TRACE"])
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    ends = {(number, job): float(when) for what, number, when, job in lines if what == "end"}
    return [
        Batch(int(number), float(when), ends.get((number, job)), job)
        for what, number, when, job in lines
        if what == "begin"
    ]
