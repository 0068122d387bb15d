"""A copy of the repository in which the whole workflow has run once; tests change copies of that copy."""

import fcntl
import shutil
from pathlib import Path

import pytest

from checkouts import Checkout, copy_checkout, copy_repository
from environments import write_guard

SCALE = Path(__file__).with_name("config.yaml")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Checkout:
    """A checkout in which everything is made. Not to be changed.

    The worker that first needs it makes it; the others wait, which is faster than to make it beside, and take
    a copy.
    """
    own = tmp_path_factory.getbasetemp()
    common = own if worker_id == "master" else own.parent
    folder = common / "everything-made"
    with open(common / "everything-made.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "run.log").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            made = copy_repository(folder, SCALE)
            # On PYTHONPATH of the jobs: each sees its environment's packages only.
            write_guard(made / "workflow")
            (made / "run.log").write_text(made.make())
    return copy_checkout(Checkout(folder), tmp_path_factory.mktemp("finished") / "checkout")


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A copy of the finished checkout, to be changed."""
    return copy_checkout(finished, tmp_path / "checkout")


@pytest.fixture
def fresh(tmp_path) -> Checkout:
    """A checkout in which nothing has run."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    return copy_repository(folder, SCALE)
