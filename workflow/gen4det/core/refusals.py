"""Bad input is refused once.

A scheduler's retries are for time, memory and nodes. They would ask for a GPU three more times to say three
more times that a file is missing. So a job that refuses its input leaves a note, and a further attempt of the
same command says the same before it loads anything. The first attempt of the next run looks again.
"""

import contextlib
import os
import sys
from pathlib import Path

from gen4det.core.provenance import content_hash

ATTEMPT = "GEN4DET_ATTEMPT"
"""Variable of the environment: which attempt of a job this is, from 1. Absent where no workflow runs it."""
FOLDER = Path(".snakemake/gen4det.refused")
"""Where notes are kept, from the folder the workflow runs in."""


def refused_before() -> str | None:
    """What an earlier attempt of this command said, if this is a retry of one that refused its input."""
    if int(os.environ.get(ATTEMPT, "1")) > 1:
        with contextlib.suppress(OSError):
            return _note().read_text()
    else:
        _note().unlink(missing_ok=True)
    return None


def remember_refusal(message: str) -> None:
    """Leave a note for further attempts of this command; without a workflow there are none."""
    if ATTEMPT in os.environ:
        with contextlib.suppress(OSError):  # a disk that takes no note: the next attempt finds out itself
            FOLDER.mkdir(parents=True, exist_ok=True)
            _note().write_text(message)


def _note() -> Path:
    return FOLDER / content_hash(sys.argv)[:16]
