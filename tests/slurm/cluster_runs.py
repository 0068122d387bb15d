"""Runs on the cluster of the tests: watched while they go on, and looked up in Slurm's accounting."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from local_cluster import call

from checkouts import Checkout

ANNOTATIONS = "results/test/synthetic/lvis/slow/annotations.json"
SHARDS = "results/test/synthetic/lvis/slow/shards"


@dataclass
class Run:
    """Snakemake at work on the cluster."""

    checkout: Checkout
    process: subprocess.Popen
    log: Path

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object], seconds: float = 240) -> None:
        """Wait until `condition()` is true while the run goes on."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the run ended early\n{self.text()[-4000:]}"
            assert time.monotonic() < deadline, f"nothing happened\n{self.text()[-4000:]}"
            time.sleep(0.2)

    def ends(self, seconds: float = 480) -> int:
        """Exit status, when it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run does not end\n{self.text()[-4000:]}") from None


@contextlib.contextmanager
def running(checkout: Checkout, *arguments: str) -> Iterator[Run]:
    """Snakemake in a process group of its own, killed at the end if still alive."""
    log = checkout / "disturbed.log"
    with open(log, "w") as stream:
        process = subprocess.Popen(
            checkout.command(*arguments),
            cwd=checkout.folder,
            env=checkout.environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Run(checkout, process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
