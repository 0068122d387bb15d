"""What jobs ask of a scheduler grows with the attempt and with what they read."""

import json
import sys
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import InputFiles

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


def sized(folder, name: str, megabytes: float) -> str:
    """A file of this size; its contents are holes."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as stream:
        stream.truncate(int(megabytes * 10**6))
    return str(path)


def descriptor(folder, val: str = "val.json") -> str:
    path = folder / "dataset.json"
    splits = {"train": {"annotations": "train.json"}, "val": {"annotations": val}}
    path.write_text(json.dumps(splits))
    return str(path)


def test_memory_follows_the_annotations_that_are_read(tmp_path):
    train, _, other = (sized(tmp_path, f"{n}.json", size) for n, size in (("train", 3), ("val", 1), ("a", 2)))
    inputs = [descriptor(tmp_path), other, sized(tmp_path, "a.zip", 50), str(tmp_path / "to-be-made.json")]
    assert annotation_megabytes(inputs)[0] == pytest.approx(6, abs=1e-3)
    assert annotation_megabytes([train, *inputs])[0] == pytest.approx(6, abs=1e-3)  # nothing counts twice
    assert memory("filter", NEEDS)(None, inputs, attempt=1) == pytest.approx(1000 + 8 * 6, abs=1)


def test_a_subset_reads_the_validation_of_the_whole_set(tmp_path):
    (tmp_path / "part").mkdir()
    sized(tmp_path, "whole/val.json", 5)
    sized(tmp_path, "part/train.json", 1)
    subset = descriptor(tmp_path / "part", "../whole/val.json")
    assert annotation_megabytes([subset])[0] == pytest.approx(6, abs=1e-3)


def test_what_is_read_one_file_at_a_time_counts_once(tmp_path):
    """Hundreds of files of detections must not ask for hundreds of gigabytes."""
    inputs = InputFiles()
    for name, size in (("shards", 2), ("detections", 30), ("aesthetic", 1)):
        start = len(inputs)
        inputs.extend(sized(tmp_path, f"{name}/{shard:05d}.json", size + shard) for shard in range(3))
        inputs._set_name(name, start, end=len(inputs))
    assert annotation_megabytes(inputs) == ((2 + 3 + 4) + 32 + 3, 0)


def test_tables_of_labels_are_mapped_by_filters_and_trainings_and_records_elsewhere(tmp_path):
    sized(tmp_path, "train.json", 90)
    sized(tmp_path, "train.arrow", 100)
    splits = {
        "train": {"annotations": "train.json", "table": "train.arrow"},
        "val": {"annotations": "v.json"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(splits))
    inputs = [str(tmp_path / "dataset.json"), sized(tmp_path, "00000.arrow", 200)]
    assert memory("plot", NEEDS)(None, inputs, attempt=1) == pytest.approx(1000 + 8 * 290, abs=1)
    for kind in ("filter", "train"):
        assert memory(kind, NEEDS)(None, inputs, attempt=1) == pytest.approx(1000 + 0.2 * 300, abs=1)


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
