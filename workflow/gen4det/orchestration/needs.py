"""What jobs ask of a scheduler: memory and minutes, by attempt, by settings and by what they read.

A retry follows a failure that may have been one of resources, so it asks for more. Jobs that resume end
themselves before their time is up and go on in the next attempt: for them another attempt is mostly just
another segment, so their minutes stay and their memory grows slowly.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

RESUMABLE = frozenset({"fit", "generate", "train"})
"""Kinds of jobs that save their progress and take `--max-seconds`."""
GROWTH = {True: 0.5, False: 1.0}
"""Part of the first request that every further attempt adds, for jobs that resume and for others."""
PARSED_JSON = 8
"""Bytes of memory that a byte of annotations takes once it is Python objects."""


class Needs(Protocol):
    """What a kind of job asks for at its first attempt; `config.JobNeeds` is one."""

    mem_mb: int
    runtime: int
    gpu: int


def memory(kind: str, needs: Needs) -> Callable:
    """mem_mb of a kind of job, in MB, for `resources`.

    Args:
        kind: name of the kind in the scale file's `needs`.
        needs: what it asks for, without what it reads. On several GPUs a process for each reads all of it.
    """
    growth = GROWTH[kind in RESUMABLE]

    def mem_mb(wildcards: Any, input: Iterable[str], attempt: int) -> int:
        first = needs.mem_mb + PARSED_JSON * annotation_megabytes(input) * max(1, needs.gpu)
        return math.ceil(first * (1 + growth * (attempt - 1)))

    return mem_mb


def runtime(kind: str, needs: Needs) -> Callable:
    """Minutes of a kind of job, for `resources`: more with each attempt unless it resumes."""
    resumable = kind in RESUMABLE

    def minutes(wildcards: Any, attempt: int) -> int:
        return needs.runtime if resumable else needs.runtime * attempt

    return minutes


def launcher(wildcards: Any, resources: Any) -> str:
    """How a stage that can use several GPUs starts: one task of the scheduler, one process for each GPU."""
    if resources.gpu > 1:
        return f"python -m torch.distributed.run --standalone --nproc-per-node {resources.gpu} -m"
    return "python -m"


def annotation_megabytes(files: Iterable[str]) -> float:
    """Size of the annotations that a job parses, in MB; files that are still to be made count nothing.

    Args:
        files: the job's inputs. A data set's descriptor stands for the annotation files beside it.
    """
    read = {path for file in files if (path := Path(file)).suffix == ".json"}
    for path in [path for path in read if path.name == "dataset.json"]:
        read |= {path.with_name("train.json"), path.with_name("val.json")}
    return sum(path.stat().st_size for path in read if path.is_file()) / 1e6
