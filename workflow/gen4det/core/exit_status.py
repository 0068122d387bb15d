"""Exit statuses of all stages."""

import signal

EXIT_INPUT = 2
"""Something that the user can correct; one line on stderr says what."""
EXIT_OUT_OF_TIME = 75
"""The budget is used up and progress is saved: run the same command again (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED = 128 + signal.SIGINT
"""Ctrl-C."""
EXIT_TERMINATED = 128 + signal.SIGTERM
"""SIGTERM; what could be saved is saved."""
