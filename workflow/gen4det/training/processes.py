"""Several processes that train together, one for each GPU; torchrun starts them and tells them so.

The first process alone writes logs, records and checkpoints and hashes inputs.
Everything here works alike, and costs nothing, in a process of its own.
"""

import os
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

TIMEOUT = timedelta(hours=3)
"""The others wait this long for the first, which may have to hash or to write many gigabytes."""

_group = None
"""Communicates over the CPU, so that the check after every iteration never waits for a GPU."""


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes files and logs."""
    return rank() == 0


def join(device: str) -> tuple[int, int]:
    """Meet the other processes, if there are any; each takes its own GPU.

    Args:
        device: "cpu" or "cuda".

    Returns:
        (rank, number of processes)
    """
    global _group
    if world_size() > 1 and _group is None:
        import torch
        from torch import distributed

        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
        _group = distributed.new_group(backend="gloo", timeout=TIMEOUT)
    return rank(), world_size()


def from_first(value: T) -> T:
    """The value that the first process has, in all of them; anything that pickles."""
    if _group is None:
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, group=_group, device="cpu")
    return box[0]


def any_of(told: bool) -> bool:
    """Whether any process says yes; all get the same answer."""
    if _group is None:
        return told
    import torch
    from torch import distributed

    flag = torch.tensor(int(told))
    distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=_group)
    return bool(flag)


def wait() -> None:
    """Go on when all processes are here: until the first has saved, none may leave, or torchrun ends it."""
    if _group is not None:
        from torch import distributed

        distributed.barrier(group=_group)
