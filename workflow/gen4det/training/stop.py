"""When a long job stops by itself: on SIGTERM, or before its wall-clock budget is used up."""

import signal
import sys
import time
from types import FrameType
from typing import Protocol

from gen4det.core.exit_status import EXIT_OUT_OF_TIME, EXIT_TERMINATED

PATIENCE = 30.0
"""Seconds after a SIGTERM in which further ones count as the same request. Slurm signals every process of a
job and torchrun passes its own signal on, so that each process gets two or more, within milliseconds."""


class Stop(Protocol):
    """What a loop asks between two steps; `Deadline` is one."""

    def step(self) -> None:
        """A step has ended."""

    def reached(self) -> bool:
        """Whether to save and stop now."""

    @property
    def exit_status(self) -> int:
        """Exit status of a job that stopped because of this."""


class Stopped(SystemExit):
    """The job was told to stop and all is saved. It need not be caught: the process exits with its status."""


class Deadline:
    """Asked between the steps of a loop whether to stop, so that finished steps are never lost.

    As a context manager it treats SIGTERM inside its block as a request to stop after the current step.
    Another one after `PATIENCE` seconds ends the process at once.

    Args:
        max_seconds: wall-clock budget from now on; None: unlimited.
    """

    def __init__(self, max_seconds: float | None = None):
        self.max_seconds = max_seconds
        self.out_of_time = False
        self._terminated_at: float | None = None
        self._started = self._last_step = time.monotonic()
        self._steps: list[float] = []

    def step(self) -> None:
        """A step has ended."""
        now = time.monotonic()
        self._steps.append(now - self._last_step)
        self._last_step = now

    def reached(self) -> bool:
        """Whether to stop before the next step, which is assumed to take as long as the longest so far.

        The first step is always allowed, so that every attempt makes progress; its duration, in which models
        are loaded, counts only until there is another.
        """
        if self.max_seconds is not None and self._steps:
            longest = max(self._steps[1:] or self._steps)
            self.out_of_time |= time.monotonic() - self._started + longest >= self.max_seconds
        return self.stopped

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM came."""
        return self._terminated_at is not None

    @property
    def stopped(self) -> bool:
        """Whether it has been reached."""
        return self.terminated or self.out_of_time

    @property
    def exit_status(self) -> int:
        """Exit status of a stage that stopped because of this deadline."""
        return EXIT_TERMINATED if self.terminated else EXIT_OUT_OF_TIME

    def __enter__(self) -> "Deadline":
        self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, kind, value, traceback) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._terminated_at is None:
            self._terminated_at = now
        elif now - self._terminated_at > PATIENCE:
            sys.exit(EXIT_TERMINATED)
