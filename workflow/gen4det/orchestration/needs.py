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
MAPPING = frozenset({"filter", "generate", "train"})
"""Kinds of jobs that read tables of labels column by column, or not at all, and make no Python objects of
them."""
PARSED = 8
"""Bytes of memory that a byte of annotations, as JSON or as a table, takes once it is Python objects."""
INDEX = 0.2
"""Bytes of memory that a byte of a table takes where it is mapped: verdicts, numbers of images, what they
show."""


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
        parsed, mapped = annotation_megabytes(input, maps=kind in MAPPING)
        first = needs.mem_mb + (PARSED * parsed + INDEX * mapped) * max(1, needs.gpu)
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


def annotation_megabytes(inputs: Any, *, maps: bool = False) -> tuple[float, float]:
    """Size of the annotations that a job holds as objects, and that it maps, in MB; files that are still to
    be made count nothing.

    Args:
        inputs: the job's inputs, by name where they have names. A data set's descriptor stands for the
            annotation files it names.
        maps: whether tables of labels are mapped, that of a training split in place of its JSON.
    """
    named = dict(inputs.items()) if hasattr(inputs, "items") else {}
    largest, streamed = 0.0, set()
    for name in ONE_AT_A_TIME & named.keys():
        files = [named[name]] if isinstance(named[name], str) else list(named[name])
        streamed.update(map(str, files))
        largest += max((_size(Path(file)) for file in files), default=0)
    files = {path for file in inputs if str(file) not in streamed for path in [Path(file)]}
    read = {path for path in files if path.suffix in (".json", ".arrow")}
    for path in [path for path in read if path.name == "dataset.json"]:
        read |= set(_annotations(path, maps))
    read = {path.resolve() for path in read}
    mapped = {path for path in read if maps and path.suffix == ".arrow"}
    return (largest + sum(map(_size, read - mapped))) / 1e6, sum(map(_size, mapped)) / 1e6


def _annotations(descriptor: Path, maps: bool) -> Iterator[Path]:
    """Annotation files of a data set; those of a subset's validation split lie with the whole set."""
    try:
        splits = json.loads(descriptor.read_bytes())
        if maps and splits["train"].get("table"):
            yield descriptor.parent / splits["train"]["table"]
            return
        yield from (descriptor.parent / splits[name]["annotations"] for name in ("train", "val"))
    except (OSError, ValueError, LookupError, TypeError):  # not made yet, or unusable: the job itself says so
        return


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
