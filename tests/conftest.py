"""Fixtures that tests share."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest_plugins = ["tiny_models", "file_server"]

# One thread in every process, as in the workflow's jobs on a small machine: sums are then added in one
# order, so that results of this process and of those that tests start are the same to the last bit.
os.environ["OMP_NUM_THREADS"] = "1"

FIRST = ("workflow", "slurm")
"""Folders whose tests take minutes: with several workers, what begins with the longest ends soonest."""


def pytest_collection_modifyitems(items):
    """Put the long tests first."""
    order = {name: position for position, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(FIRST)))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real input data: the folder that GEN4DET_SHARED names, or `shared` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("GEN4DET_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip("no shared data; set GEN4DET_SHARED to a folder that holds data/coco-mini")
    return folder


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    """A disk of 256 KiB that can really be full; needs the right to mount."""
    folder = tmp_path / "tiny_disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
