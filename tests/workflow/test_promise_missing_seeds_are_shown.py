"""Promise: a missing seed is shown missing, never averaged away."""

import shlex
import subprocess
import sys

import pytest

pytestmark = pytest.mark.workflow


def test_a_table_of_three_seeds_of_which_one_is_there(checkout):
    plan = checkout.make(
        "--dry-run",
        "--printshellcmds",
        "--config",
        "seeds=[0,1,2]",
        "--",
        "results/test/tables/lvis_rare.csv",
    )
    command = next(line for line in plan.splitlines() if "gen4det.stages.plot table" in line)
    arguments = shlex.split(command.partition("gen4det.stages.plot")[2].partition(" 2>&1")[0])
    files = {word: checkout / word.rpartition("=")[2] for word in arguments if word.endswith("metrics.json")}
    there = [word for word in arguments if word not in files or files[word].is_file()]
    assert len(arguments) - len(there) == 6
    subprocess.run(
        [sys.executable, "-m", "gen4det.stages.plot", *there],
        cwd=checkout.folder, env=checkout.environment(), check=True,
    )  # fmt: skip
    text = (checkout / "results/test/tables/lvis_rare.md").read_text()
    assert text.count("1/3 (missing: 1, 2)") == 3, text
