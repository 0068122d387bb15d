"""When a long stage stops by itself: on SIGTERM, or before its wall-clock budget is used up."""

import signal
import sys
import time
from types import FrameType

from gen4det.stages._cli import EXIT_TERMINATED

EXIT_OUT_OF_TIME = 75
"""The budget is used up and progress is saved: run the same command again (EX_TEMPFAIL of sysexits.h)."""


class Deadline:
    """Asked between the steps of a loop whether to stop, so that finished steps are never lost.

    As a context manager it takes SIGTERM inside its block as a wish to stop after the current step; a second
    SIGTERM leaves at once.

    Args:
        max_seconds: wall-clock budget from now on; None: unlimited.
    """

    def __init__(self, max_seconds: float | None = None):
        self.max_seconds = max_seconds
        self.terminated = False
        self.out_of_time = False
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
        if self.terminated:
            sys.exit(EXIT_TERMINATED)
        self.terminated = True
