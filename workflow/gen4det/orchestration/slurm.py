"""What a run leaves behind on a cluster: jobs of a driver that died, batches kept for another attempt.

A driver that is told to stop cancels its jobs. One that is killed, or whose host goes down, cannot: its jobs
go on, and a fresh run would submit them a second time. So the fresh run ends them first. They save their
progress, and it goes on from there.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.refusals import ATTEMPT

PREFIX = "gen4det_"
"""What names of our jobs begin with: `slurm-jobname-prefix` of the profile."""
PACKED = "GEN4DET_PACKED"
"""Variable of the environment of jobs that share an allocation."""
PATIENCE = 600.0
"""Seconds that jobs may take to end. Slurm itself kills them KillWait seconds (30) after the first signal."""


def jobs_left_behind(checkout: Path) -> list[str]:
    """Numbers of the jobs that runs in a checkout have in Slurm, waiting or running.

    Raises:
        InputError: squeue cannot be asked.
    """
    lines = _slurm("squeue", "--me", "--noheader", "--array", "--format=%i|%j|%Z").splitlines()
    rows = [line.strip().split("|", 2) for line in lines if line.strip()]
    folder = checkout.resolve()
    return [number for number, name, where in rows if name.startswith(PREFIX) and Path(where) == folder]


def end_jobs_left_behind(checkout: Path, say: Callable[[str], None]) -> None:
    """End the jobs of a driver that died, and wait until they are gone. To be called under the run's lock.

    Args:
        checkout: folder in which Snakemake runs.
        say: shows a line to the user.

    Raises:
        InputError: Slurm does not answer, or the jobs do not end.
    """
    jobs = jobs_left_behind(checkout)
    if not jobs:
        return
    if runs := other_runs(checkout):
        say(f"Note: {len(jobs)} jobs in Slurm belong to another run in this checkout ({runs} hold locks).")
        return
    say(
        f"A run in this checkout died and left {len(jobs)} jobs in Slurm ({_some(jobs)}). "
        "They are ended, save their progress, and go on in this run."
    )
    _slurm("scancel", *jobs)
    deadline = time.monotonic() + PATIENCE
    while left := set(jobs) & set(jobs_left_behind(checkout)):
        if time.monotonic() > deadline:
            raise InputError(f"Slurm: jobs {_some(sorted(left))} do not end; see `squeue`, then start again")
        time.sleep(2)


def other_runs(checkout: Path) -> int:
    """How many other runs hold locks in a checkout. Runs that make different files may work side by side."""
    return max(0, len(list((checkout / ".snakemake/locks").glob("*.output.lock"))) - 1)


def shares_allocation(arguments: list[str]) -> bool:
    """Whether this process is, or was started by, a Snakemake that runs a group of jobs in one allocation.

    Snakemake tells the process that leads the allocation, not those it starts for each job; this does.
    """
    if "--local-groupid" in arguments:
        os.environ[PACKED] = "1"
    return PACKED in os.environ


def tell_attempt(arguments: list[str]) -> None:
    """Let the jobs of this process know which attempt of theirs it is; see `core.refusals`.

    Args:
        arguments: of this process. Those of the main one do not tell, and its jobs are all first attempts.
    """
    follows = arguments.index("--attempt") + 1 if "--attempt" in arguments else None
    os.environ[ATTEMPT] = arguments[follows] if follows else os.environ.get(ATTEMPT, "1")


def discard_kept_batches(results: Path) -> None:
    """Remove the work folders of shards that are complete.

    Shards that share an allocation keep their batches, because Snakemake deletes the finished ones, too, when
    a later one fails; the next attempt then has nothing to draw.
    """
    for record in results.glob("synthetic/*/*/shards/*.record.json"):
        work = record.with_name(record.name.removesuffix(".record.json") + ".work")
        if work.is_dir():
            shutil.rmtree(work)


def _slurm(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    except FileNotFoundError as error:
        raise InputError(
            f"{command[0]}: no such command; is this a host from which jobs are submitted?"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{command[0]}: no answer from Slurm within two minutes") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"{command[0]}: {error.stderr.strip()}") from error


def _some(numbers: list[str]) -> str:
    return ", ".join(numbers[:5]) + (", ..." if len(numbers) > 5 else "")
