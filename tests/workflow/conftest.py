"""A copy of the repository in which the whole workflow has run once; tests change copies of that copy."""

from pathlib import Path

import pytest

from checkouts import Checkout, copy_checkout, copy_repository
from environments import write_guard

SCALE = Path(__file__).with_name("config.yaml")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A checkout in which everything is made. Not to be changed."""
    checkout = copy_repository(tmp_path_factory.mktemp("finished"), SCALE)
    write_guard(checkout / "workflow")  # on PYTHONPATH of the jobs: each sees its environment's packages only
    (checkout / "run.log").write_text(checkout.make())
    return checkout


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
