"""What the workflow itself says on the screen: who holds the lock of this checkout, and why jobs failed."""

import atexit
import datetime
import json
import os
import re
import socket
import sys
from pathlib import Path

NOTE = "gen4det.run.json"
"""File in .snakemake that says which run took the lock last."""


def note_run(folder: Path) -> None:
    """Remember this process as the one at work.

    Args:
        folder: the checkout's .snakemake.
    """
    run = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
    }
    (folder / NOTE).write_text(json.dumps(run))


def explain_locks(folder: Path) -> str | None:
    """What to do about the locks in a checkout; None if there are none.

    Args:
        folder: the checkout's .snakemake.
    """
    if not any((folder / "locks").glob("*.lock")):
        return None
    try:
        run = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        run = {"process": 0, "host": "?", "started": "?"}
    known = f"process {run['process']} on {run['host']}, started {run['started']}"
    if run["host"] == socket.gethostname() and not _is_alive(run["process"]):
        return (
            f"Note: a run in this checkout was killed ({known}) and could not remove its lock. "
            "Remove it with `make unlock`, then start again; finished work is kept."
        )
    return (
        f"Note: another run is at work in this checkout ({known}). Two runs must not make the same files: "
        "wait until it ends. If it was killed, remove its lock with `make unlock`."
    )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process > 0


def explain_failures(run_logs: list[str]) -> list[str]:
    """Why the jobs of a run failed, one line each: the last words of their logs.

    Args:
        run_logs: Snakemake's logs of the run.
    """
    text = "\n".join(Path(log).read_text(errors="replace") for log in run_logs)
    named = re.findall(r"^ +log: (\S+) \(check log file", text, re.MULTILINE)
    lines = []
    for path in dict.fromkeys(named):
        try:
            said = [line for line in Path(path).read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            said = []
        errors = [line for line in said if line.startswith("error: ")]
        lines.append(f"{path}: {(errors or said or ['(empty)'])[-1]}")
    return lines


def say_last(*lines: str) -> None:
    """Show lines when the process ends, after Snakemake's own account of a failure, a page of shell."""
    atexit.register(print, *lines, sep="\n", file=sys.stderr, flush=True)
