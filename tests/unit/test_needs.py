"""What jobs ask of a scheduler grows with the attempt and with what they read."""

import sys
from types import SimpleNamespace

import pytest

from gen4det.orchestration import commands as workflow
from gen4det.orchestration.commands import interpreter_folder
from gen4det.orchestration.needs import annotation_megabytes, launcher, memory, runtime
from gen4det.orchestration.scale import JobNeeds

NEEDS = JobNeeds(mem_mb=1000, runtime=60)


@pytest.mark.parametrize(
    ("kind", "megabytes", "minutes"),
    [("evaluate", [1000, 2000, 3000], [60, 120, 180]), ("train", [1000, 1500, 2000], [60, 60, 60])],
)
def test_attempts_of_jobs_that_start_anew_and_that_resume(kind, megabytes, minutes):
    attempts = (1, 2, 3)
    assert [memory(kind, NEEDS)(None, [], attempt=attempt) for attempt in attempts] == megabytes
    assert [runtime(kind, NEEDS)(None, attempt=attempt) for attempt in attempts] == minutes


def test_memory_follows_the_annotations_that_are_read(tmp_path):
    for name, size in {"dataset.json": 0, "train.json": 3, "val.json": 1, "a.json": 2, "a.zip": 50}.items():
        (tmp_path / name).write_bytes(bytes(size * 10**6))
    inputs = [str(tmp_path / name) for name in ("dataset.json", "a.json", "a.zip", "to-be-made.json")]
    assert annotation_megabytes(inputs) == 6
    assert annotation_megabytes([str(tmp_path / "train.json"), *inputs]) == 6  # nothing counts twice
    assert memory("filter", NEEDS)(None, inputs, attempt=1) == 1000 + 8 * 6


def test_every_process_of_a_training_on_several_gpus_reads_the_annotations_and_all_share_the_loaders(
    tmp_path,
):
    (tmp_path / "a.json").write_bytes(bytes(10**6))
    one, eight = (JobNeeds(mem_mb=1000, runtime=60, gpu=gpu) for gpu in (1, 8))
    asked = [memory("train", needs)(None, [str(tmp_path / "a.json")], attempt=1) for needs in (one, eight)]
    assert asked == [1000 + 8, 1000 + 8 * 8]
    shared = [workflow.loaders(None, SimpleNamespace(gpu=gpu), threads=8) for gpu in (0, 1, 4, 8, 16)]
    assert shared == [0, 8, 2, 1, 1]


def test_several_gpus_are_one_task_that_starts_a_process_for_each():
    assert launcher(None, SimpleNamespace(gpu=1)) == launcher(None, SimpleNamespace(gpu=0)) == "python -m"
    several = launcher(None, SimpleNamespace(gpu=4))
    assert several == "python -m torch.distributed.run --standalone --nproc-per-node 4 -m"


def test_a_submit_host_without_the_libraries_uses_those_of_the_checkout(tmp_path, monkeypatch):
    own = interpreter_folder(tmp_path)
    assert own.samefile(f"{sys.prefix}/bin")
    monkeypatch.setattr(workflow.importlib.util, "find_spec", lambda name: None)
    assert interpreter_folder(tmp_path) == own  # nothing better is there
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    assert interpreter_folder(tmp_path) == tmp_path / ".venv/bin"
