"""How long tests wait for other processes before they give up.

Limits end what hangs; they measure nothing. Each is many times what a quiet machine needs. On a busy one,
GEN4DET_TEST_PATIENCE=10 makes all of them ten times as long.
"""

import os


def patience(seconds: float) -> float:
    """A limit of so many seconds, stretched as the environment says."""
    return seconds * float(os.environ.get("GEN4DET_TEST_PATIENCE", "1"))
