"""The clock of all benchmarks."""

import time
from collections.abc import Callable

import torch


def timed(run: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds on the wall clock, and of CPU time over all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu
