"""Parts of the shell commands of the rules: device, processes, wall-clock budget, environment. No torch."""

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def device(wildcards: Any, resources: Any) -> str:
    """Torch device of a job. Since it reads `resources`, Snakemake does not compare it: results travel.

    GEN4DET_DEVICE=cpu overrules it, to rehearse a cluster run where Slurm's GPUs are none.
    """
    return os.environ.get("GEN4DET_DEVICE") or ("cuda" if resources.gpu else "cpu")


def loaders(wildcards: Any, resources: Any, threads: int) -> int:
    """Processes that load images for each GPU; on the CPU the model itself needs the cores."""
    return max(1, threads // max(1, resources.gpu)) if device(wildcards, resources) == "cuda" else 0


def helpers(wildcards: Any, threads: int) -> int:
    """Processes for CPU work beside the one that draws."""
    return max(1, threads - 1)


def time_budget(*, limited: bool) -> Callable:
    """Option that makes a resumable stage save and stop before the scheduler ends its job.

    Args:
        limited: whether jobs run under a scheduler that enforces `runtime`; on a laptop nobody does.
    """

    def option(wildcards: Any, resources: Any) -> str:
        seconds = resources.runtime * 60
        return f"--max-seconds {seconds - max(120, seconds // 20)}" if limited else ""

    return option


def keep_batches(*, packed: bool) -> Callable:
    """Option that keeps the batches of a finished shard; see `slurm.discard_kept_batches`.

    Args:
        packed: whether this job is one of several in an allocation, which fail together.
    """

    def option(wildcards: Any, resources: Any) -> str:  # reads `resources`, and so is not compared
        return "--keep-batches" if packed else ""

    return option


def shell_prefix(root: str | Path, *, environments: bool) -> str:
    """What runs before every shell command, in place of Snakemake's own `set -euo pipefail`.

    - `python` is that of `interpreter_folder`, unless `environments` of each rule bring their own; either
      finds the package in this checkout.
    - `tee_log` shows a job's output on the screen and keeps it in its log, where each state of a progress bar
      becomes a line. It outlives SIGTERM and Ctrl-C, and so does the shell: a stage that is told to stop can
      still save and say so.
    - OpenMP threads sleep while they wait for each other. Spinning, as is their default, they keep the cores
      from the thread they wait for as soon as anything else runs on the machine.
    - transformers does not say that it could read images with torchvision: nothing here needs it to.
    """
    package = shlex.quote(str(Path(root, "workflow")))
    path = "" if environments else f'export PATH={shlex.quote(str(interpreter_folder(root)))}:"$PATH"; '
    seconds = 1 if sys.stderr.isatty() else 30
    return (
        f"export PYTHONPATH={package} PYTHONUNBUFFERED=1 GEN4DET_PROGRESS_SECONDS={seconds} "
        "OMP_WAIT_POLICY=${{OMP_WAIT_POLICY:-PASSIVE}} "
        "TRANSFORMERS_VERBOSITY=${{TRANSFORMERS_VERBOSITY:-error}}; "
        f"{path}set -euo pipefail; trap : TERM INT; "
        """tee_log() {{ trap '' TERM INT; tee "$1"; sed -i 's/\\r/\\n/g' "$1"; }}; """
    )


def interpreter_folder(root: str | Path) -> Path:
    """Folder of the `python` of jobs that bring no environment of their own.

    It is the one that runs Snakemake, except on a submit host whose Snakemake lives without the libraries of
    the jobs (envs/submit.yaml): there it is that of the checkout's .venv.
    """
    checkout = Path(root, ".venv", "bin")
    submits_only = importlib.util.find_spec("torch") is None
    return checkout if submits_only and (checkout / "python").exists() else Path(sys.executable).parent
