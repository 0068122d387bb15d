"""Fixtures that tests share."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest_plugins = ["tiny_models", "file_server"]

# As in jobs of the workflow: spinning threads starve each other when something else runs beside the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
