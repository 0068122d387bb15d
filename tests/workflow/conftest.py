"""A copy of the repository in which the whole workflow has run once; tests change copies of that copy."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config", "workflow", "local", "slurm", "envs", "resources")
CONFIG = "config/test.yaml"
RESULTS = Path("results/test")


@dataclass
class Checkout:
    """A working copy of the repository with its own results."""

    folder: Path

    def __truediv__(self, path: str | Path) -> Path:
        return self.folder / path

    def command(self, *arguments: str) -> list[str]:
        # --configfile takes every word up to the next option, targets included: it must not come last.
        options = ["--configfile", CONFIG, "--profile", "local", "--cores", "2"]
        return [sys.executable, "-m", "snakemake", *options, *arguments]

    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CONDA_PREFIX")
        }
        return kept | {"COLUMNS": "100"}

    def run(self, *arguments: str, **more) -> subprocess.CompletedProcess:
        """Run Snakemake; stdout and stderr come together in stdout."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            **more,
        )

    def make(self, *arguments: str) -> str:
        """Run Snakemake, which must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    def planned(self, *arguments: str) -> Counter:
        """Number of jobs per rule that a run would execute, without the target rule."""
        text = self.make("--dry-run", *arguments)
        if "Nothing to be done" in text:
            return Counter()
        table = text.partition("Job stats:")[2].partition("total")[0]
        jobs = Counter(
            {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        )
        del jobs["all"]
        return jobs

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in a file, which must contain it once."""
        file = self / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path}: {text.count(old)} times {old!r}"
        file.write_text(text.replace(old, new))


def copy_repository(folder: Path) -> Checkout:
    """The repository's files without results."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif source.exists():
            shutil.copy2(source, folder / part)
    shutil.copy2(Path(__file__).with_name("config.yaml"), folder / CONFIG)
    return Checkout(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A checkout in which everything is made. Not to be changed."""
    checkout = copy_repository(tmp_path_factory.mktemp("finished"))
    (checkout / "run.log").write_text(checkout.make())
    return checkout


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A copy of the finished checkout, to be changed. Times of files are kept, as Snakemake compares them."""
    folder = tmp_path / "checkout"
    subprocess.run(["cp", "-a", str(finished.folder), str(folder)], check=True)
    return Checkout(folder)


@pytest.fixture
def fresh(tmp_path) -> Checkout:
    """A checkout in which nothing has run."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    return copy_repository(folder)
