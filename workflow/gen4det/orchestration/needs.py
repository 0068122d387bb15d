"""What jobs ask of a scheduler: memory and minutes, by attempt, by settings and by what they read.

A retry follows a failure that may have been one of resources, so it asks for more. Jobs that resume end
themselves before their time is up and go on in the next attempt: for them another attempt is mostly just
another segment, so their minutes stay and their memory grows slowly.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

RESUMABLE = frozenset({"fit", "generate", "train"})
"""Kinds of jobs that save their progress and take `--max-seconds`."""
GROWTH = {True: 0.5, False: 1.0}
"""Part of the first request that every further attempt adds, for jobs that resume and for others."""
ONE_AT_A_TIME = frozenset({"detections", "aesthetic"})
"""Inputs of which a job holds one file at a time, however many there are: the largest counts."""
SHOWS_REJECTED = frozenset({"plot"})
"""Kinds of jobs that also read the rejected labels, which lie beside a synthetic set."""
PARSED_JSON = 8
"""Bytes of memory that a byte of annotations takes once it is Python objects."""


class Needs(Protocol):
    """What a kind of job asks for at its first attempt; `scale.JobNeeds` is one."""

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

    def mem_mb(wildcards: Any, input: Any, attempt: int) -> int:
        held = annotation_megabytes(input, rejected=kind in SHOWS_REJECTED)
        first = needs.mem_mb + PARSED_JSON * held * max(1, needs.gpu)
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


def annotation_megabytes(inputs: Any, *, rejected: bool = False) -> float:
    """Size of the annotations that a job holds, in MB; files that are still to be made count nothing.

    Args:
        inputs: the job's inputs, by name where they have names. A data set's descriptor stands for the
            annotation files it names.
        rejected: whether the rejected labels beside a synthetic set are read, too.
    """
    named = dict(inputs.items()) if hasattr(inputs, "items") else {}
    largest, streamed = 0.0, set()
    for name in ONE_AT_A_TIME & named.keys():
        files = [named[name]] if isinstance(named[name], str) else list(named[name])
        streamed.update(map(str, files))
        largest += max((_size(Path(file)) for file in files), default=0)
    read = {path for file in inputs if str(file) not in streamed and (path := Path(file)).suffix == ".json"}
    for path in [path for path in read if path.name == "dataset.json"]:
        read |= set(_annotations(path))
    if rejected:
        read |= {path.with_name("rejected.json") for path in read if path.name == "annotations.json"}
    return (largest + sum(map(_size, {path.resolve() for path in read}))) / 1e6


def _annotations(descriptor: Path) -> Iterator[Path]:
    """Annotation files of a data set; those of a subset's validation split lie with the whole set."""
    try:
        splits = json.loads(descriptor.read_bytes())
        yield from (descriptor.parent / splits[name]["annotations"] for name in ("train", "val"))
    except (OSError, ValueError, LookupError, TypeError):  # not made yet, or unusable: the job itself says so
        return


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
