"""A Slurm on this machine and checkouts that run on it. Skips where there is none to be had, and says why."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_runs import ANNOTATIONS, SHARDS
from local_cluster import LocalCluster, obstacle

from checkouts import ROOT, Checkout, copy_checkout, copy_repository

HERE = Path(__file__).parent
SUBMIT = ROOT / ".venv-submit/bin/python"
"""Snakemake and the plugin, apart from the libraries of the jobs; `make test-slurm` makes it."""
OPTIONS = ("--profile", "slurm", "--profile", str(HERE))


def pytest_configure(config):
    config.addinivalue_line("markers", "disturbance: of a run on a Slurm; minutes")


def pytest_collection_modifyitems(items):
    if os.environ.get("GEN4DET_TEST_SLURM") != "all":
        for item in items:
            if item.get_closest_marker("disturbance"):
                item.add_marker(pytest.mark.skip(reason="minutes each; `make test-slurm` runs it"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A running Slurm."""
    if reason := obstacle():
        pytest.skip(reason)
    if not SUBMIT.exists():
        pytest.skip("no .venv-submit with the plugin for Slurm; `make test-slurm` makes it")
    folder = Path("/var/tmp", f"gen4det-slurm-{os.getpid()}")
    started = LocalCluster(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def cluster_checkout(folder: Path, **more) -> Checkout:
    """A copy of the repository whose Snakemake submits to Slurm."""
    variables = {"GEN4DET_DEVICE": "cpu"}  # Slurm's GPUs are none
    checkout = copy_repository(
        folder, HERE / "config.yaml", python=str(SUBMIT), options=OPTIONS, variables=variables
    )
    shutil.copy2(HERE / "lvis_rare.yaml", folder / "config/studies")
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return checkout


@pytest.fixture(scope="session")
def finished(cluster, tmp_path_factory) -> Checkout:
    """A checkout whose table was made on the cluster. Not to be changed."""
    checkout = cluster_checkout(tmp_path_factory.mktemp("finished"))
    (checkout / "run.log").write_text(checkout.make("results/test/tables/lvis_rare.csv"))
    return checkout


@pytest.fixture(scope="session")
def drawn(cluster, tmp_path_factory) -> Checkout:
    """A checkout in which the slow engine has drawn, undisturbed. Not to be changed."""
    checkout = cluster_checkout(tmp_path_factory.mktemp("drawn"))
    shutil.copytree(HERE / "slow_engine", checkout / "workflow/gen4det/engines/slow")
    (checkout / "config/engines/slow.yaml").write_text("slow:\n  method: slow\n")
    checkout.edit("config/studies/lvis_rare.yaml", "\nmetrics:", "  slow: {synthetic: [slow]}\n\nmetrics:")
    checkout.make(ANNOTATIONS)
    return checkout


@pytest.fixture
def checkout(cluster, drawn, tmp_path) -> Iterator[Checkout]:
    """A copy of it in which drawing is to be done again."""
    copy = copy_checkout(drawn, tmp_path / "checkout")
    shutil.rmtree(copy / SHARDS)
    (copy / ANNOTATIONS).unlink()
    copy.variables["SLOW_TRACE"] = str(tmp_path / "trace")
    yield copy
    cluster.cancel_all()
