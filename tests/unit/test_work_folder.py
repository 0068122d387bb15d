"""Work folders and deadlines: what long jobs resume from, refuse, and stop for."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gen4det.core.errors import InputError
from gen4det.training import stop
from gen4det.training.stop import Deadline
from gen4det.training.work_folder import WorkFolder, memory_limit

FINGERPRINT = {"settings": {"sizes": (1, 2)}, "code": "a"}


def begin(path, memory: str | None = None, monkeypatch=None) -> int:
    """Begin an attempt that dies; the iteration it began at."""
    if monkeypatch is not None:
        monkeypatch.setenv("SLURM_MEM_PER_NODE", memory)
    with pytest.raises(MemoryError), WorkFolder(path, FINGERPRINT) as work:
        raise MemoryError
    return work.iteration


def test_what_was_saved_is_there_at_the_next_attempt(tmp_path):
    with WorkFolder(tmp_path / "work", FINGERPRINT) as work:
        assert work.state is None and work.iteration == 0
        work.save({"iteration": 7, "value": 3.5})
    with WorkFolder(tmp_path / "work", FINGERPRINT) as work:
        assert work.state == {"iteration": 7, "value": 3.5} and work.iteration == 7
        work.remove()
    assert not (tmp_path / "work").exists()


def test_the_refusal_names_all_that_differs(tmp_path):
    with WorkFolder(tmp_path / "work", {**FINGERPRINT, "data": 1}) as work:
        work.save({"iteration": 1})
    other = {"settings": {"sizes": [1, 2]}, "code": "b", "model": None, "data": 2}
    with pytest.raises(InputError, match="work: begun with other code, data; delete"):
        WorkFolder(tmp_path / "work", other).__enter__()


def test_files_of_a_job_s_own_count_as_progress(tmp_path):
    def folder(**fingerprint):
        return WorkFolder(tmp_path / "work", fingerprint, doing="drawing", keeps="*.zip")

    with folder(code="a"):
        pass
    with folder(code="b"):  # nothing was drawn yet
        (tmp_path / "work" / "1.zip").touch()
    with pytest.raises(InputError, match="begun with other code"):
        folder(code="a").__enter__()
    with folder(code="b"), pytest.raises(InputError, match="another process is drawing in this folder"):
        folder(code="b").__enter__()


def test_a_killed_process_leaves_no_lock(tmp_path):
    program = (
        "import os; from gen4det.training.work_folder import WorkFolder\n"
        f"with WorkFolder({str(tmp_path / 'work')!r}, {{}}): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    with WorkFolder(tmp_path / "work", {}):
        pass


def test_a_third_attempt_at_the_same_iteration_is_refused_and_progress_counts_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    for _ in range(2):
        begin(tmp_path / "work")
    with pytest.raises(InputError, match="2 attempts began at iteration 0 and reached no new checkpoint"):
        WorkFolder(tmp_path / "work", FINGERPRINT).__enter__()
    (tmp_path / "work" / "attempts.json").unlink()
    with WorkFolder(tmp_path / "work", FINGERPRINT) as work:
        work.save({"iteration": 5})
    assert [begin(tmp_path / "work") for _ in range(2)] == [5, 5]


def test_attempts_with_more_memory_are_never_fruitless(tmp_path, monkeypatch):
    """A scheduler's retries after running out of memory: 1.0, 1.5, 2.0 and 2.5 times the first request."""
    for memory in ("8000", "12000", "16000", "20000", "20000"):
        begin(tmp_path / "work", memory, monkeypatch)
    for memory in ("20000", "8000"):
        monkeypatch.setenv("SLURM_MEM_PER_NODE", memory)
        with pytest.raises(InputError, match="2 attempts began at iteration 0"):
            WorkFolder(tmp_path / "work", FINGERPRINT).__enter__()


def test_memory_is_what_slurm_says_or_the_control_group_allows(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1234")
    assert memory_limit() == 1234
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all of the node
    assert memory_limit() is None or memory_limit() > 100


@pytest.fixture
def own_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_after_sigterm_is_one_wish_to_stop(own_sigterm, monkeypatch):
    with Deadline() as deadline:
        assert not deadline.reached()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert deadline.reached() and deadline.exit_status == 143
        monkeypatch.setattr(stop, "PATIENCE", 0.0)
        with pytest.raises(SystemExit) as left:
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
        assert left.value.code == 143


def test_a_budget_stops_before_the_step_that_would_exceed_it():
    deadline = Deadline(max_seconds=0.0)
    assert not deadline.reached()  # the first step is always allowed
    deadline.step()
    assert deadline.reached() and deadline.exit_status == 75


def test_stopped_leaves_with_its_status():
    program = "from gen4det.training.stop import Stopped; raise Stopped(75)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 75
