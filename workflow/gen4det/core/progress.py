"""Progress bars that suit a terminal and a log file alike."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

LOG_SECONDS = float(os.environ.get("GEN4DET_PROGRESS_SECONDS", 30))
"""Least time between two states of a bar that is written to a pipe or file. The workflow pipes all output; it
asks for a state every second when somebody watches, so that bars move on the screen."""


def progress(
    items: Iterable[T],
    description: str,
    unit: str,
    *,
    total: int | None = None,
    initial: int = 0,
    hidden: bool = False,
) -> Iterator[T]:
    """Iterate over `items` behind a bar on stderr; `initial` of the `total` were done before.

    Args:
        hidden: show nothing, in a process whose work another one shows.
    """
    interval = 0.1 if sys.stderr.isatty() else LOG_SECONDS
    return tqdm(
        items,
        desc=description,
        unit=f" {unit}",
        total=total,
        initial=initial,
        mininterval=interval,
        dynamic_ncols=True,
        disable=hidden,
    )


def transfer_bar(name: str, done: int, total: int | None) -> tqdm:
    """Bar for bytes; a context manager with `update(bytes)`."""
    interval = 0.1 if sys.stderr.isatty() else LOG_SECONDS
    options = {"unit": "B", "unit_scale": True, "mininterval": interval, "dynamic_ncols": True}
    return tqdm(desc=name, initial=done, total=total, **options)
