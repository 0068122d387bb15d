"""What the command lines of all stages share: settings, one-line errors, stopping in time."""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gen4det.errors import InputError

EXIT_INPUT = 2
"""Something the user supplied is unusable."""
EXIT_OUT_OF_TIME = 75
"""`--max-seconds` is used up, progress is saved: run the same command again (EX_TEMPFAIL of sysexits.h)."""
EXIT_TERMINATED = 128 + signal.SIGTERM
"""SIGTERM arrived, progress is saved: run the same command again."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a stage and leave the process; an InputError becomes one line on stderr and exit status 2."""
    try:
        status = main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = EXIT_INPUT
    except BrokenPipeError:  # the reader of our output is gone
        status = 1
    sys.exit(status or 0)


def read_settings(argument: str) -> dict:
    """Value of `--settings`: JSON text, or the path of a JSON file.

    The workflow passes {"settings": {...}, "code": hash}; the hash is for Snakemake only and dropped here.

    Raises:
        InputError: no such file, or not a JSON object.
    """
    if argument.lstrip().startswith("{"):
        text, source = argument, "--settings"
    else:
        source = argument
        try:
            text = Path(argument).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--settings: {argument}: neither JSON text nor a readable file") from error
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a JSON object")
    if set(values) == {"settings", "code"}:
        values = values["settings"]
    return values


class Deadline:
    """Tells a long loop when to stop: SIGTERM arrived, or the next step would not end within the budget.

    As a context manager it catches SIGTERM inside its block; a second SIGTERM leaves at once.

    Args:
        max_seconds: wall-clock budget from now on; None: unlimited.
    """

    def __init__(self, max_seconds: float | None = None):
        self.max_seconds = max_seconds
        self.terminated = False
        self.out_of_time = False
        self._started = self._last_step = time.monotonic()
        self._longest_step = 0.0

    def step(self) -> None:
        """A step of the loop has ended; the next is assumed to take as long as the longest so far."""
        now = time.monotonic()
        self._longest_step = max(self._longest_step, now - self._last_step)
        self._last_step = now

    def reached(self) -> bool:
        """Whether to stop before the next step."""
        if self.max_seconds is not None:
            elapsed = time.monotonic() - self._started
            self.out_of_time |= elapsed + self._longest_step >= self.max_seconds
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
