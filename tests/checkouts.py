"""Copies of the repository that tests run Snakemake in."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from patience import patience

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "config", "workflow", "local", "slurm", "envs", "resources")
CONFIG = "config/test.yaml"
RESULTS = Path("results/test")


@dataclass
class Checkout:
    """A working copy of the repository with its own results."""

    folder: Path
    python: str = sys.executable
    """Interpreter of Snakemake."""
    options: tuple[str, ...] = ("--profile", "local", "--cores", "2")
    variables: dict[str, str] = field(default_factory=dict)
    """Added to the environment."""

    def __truediv__(self, path: str | Path) -> Path:
        return self.folder / path

    def command(self, *arguments: str) -> list[str]:
        # --configfile takes every word up to the next option, targets included: it must not come last.
        return [self.python, "-m", "snakemake", "--configfile", CONFIG, *self.options, *arguments]

    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CONDA_PREFIX")
        }
        return kept | {"COLUMNS": "100"} | self.variables

    def run(self, *arguments: str, **more) -> subprocess.CompletedProcess:
        """Run Snakemake; stdout and stderr come together in stdout."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience(1200),
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


def copy_repository(folder: Path, config: Path, **more) -> Checkout:
    """The repository's files without results.

    Args:
        config: scale file of the copy.
        more: fields of the `Checkout`.
    """
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif source.exists():
            shutil.copy2(source, folder / part)
    shutil.copy2(config, folder / CONFIG)
    return Checkout(folder, **more)


def copy_checkout(checkout: Checkout, folder: Path) -> Checkout:
    """A copy to be changed. Times of files are kept, as Snakemake compares them."""
    subprocess.run(["cp", "-a", str(checkout.folder), str(folder)], check=True)
    return Checkout(folder, checkout.python, checkout.options, dict(checkout.variables))


@dataclass
class Run:
    """Snakemake at work in a checkout."""

    process: subprocess.Popen
    log: Path

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object], seconds: float = 900) -> None:
        """Wait until `condition()` is true while the run goes on."""
        deadline = time.monotonic() + patience(seconds)
        while not condition():
            assert self.process.poll() is None, f"the run ended early\n{self.text()[-4000:]}"
            assert time.monotonic() < deadline, f"nothing happened\n{self.text()[-4000:]}"
            time.sleep(0.02)

    def ends(self, seconds: float = 1800) -> int:
        """Exit status, when it has ended."""
        try:
            return self.process.wait(patience(seconds))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run does not end\n{self.text()[-4000:]}") from None


@contextlib.contextmanager
def running(checkout: Checkout, *arguments: str) -> Iterator[Run]:
    """Snakemake and its jobs in a process group of their own, killed at the end if still alive."""
    log = checkout / "run-disturbed.log"
    with open(log, "w") as stream:
        process = subprocess.Popen(
            checkout.command(*arguments),
            cwd=checkout.folder,
            env=checkout.environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Run(process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
