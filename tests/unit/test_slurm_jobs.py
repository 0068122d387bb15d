"""What runs leave behind on a cluster. What talks to Slurm is tested with a real one in tests/slurm."""

import pytest

from gen4det.core.errors import InputError
from gen4det.orchestration.commands import keep_batches
from gen4det.orchestration.slurm import (
    PACKED,
    discard_kept_batches,
    jobs_left_behind,
    other_runs,
    shares_allocation,
)


def test_batches_are_kept_where_jobs_fail_together():
    assert keep_batches(packed=True)(None, None) == "--keep-batches"
    assert keep_batches(packed=False)(None, None) == ""


def test_jobs_that_share_an_allocation_know_it(monkeypatch):
    monkeypatch.setenv(PACKED, "")
    monkeypatch.delenv(PACKED)
    assert not shares_allocation(["snakemake", "--cores", "1"])
    assert shares_allocation(["snakemake", "--local-groupid", "x"])
    assert shares_allocation(["snakemake", "--cores", "1"])  # started by the one before


def test_batches_of_complete_shards_are_discarded(tmp_path):
    shards = tmp_path / "synthetic/lvis/mosaicfusion/shards"
    for number in ("00000", "00001"):
        (shards / f"{number}.work").mkdir(parents=True)
        (shards / f"{number}.work/00000000.zip").write_bytes(b"batch")
    (shards / "00000.record.json").write_text("{}")
    discard_kept_batches(tmp_path)
    assert not (shards / "00000.work").exists() and (shards / "00001.work").is_dir()


def test_runs_that_hold_locks_are_counted_without_this_one(tmp_path):
    locks = tmp_path / ".snakemake/locks"
    assert other_runs(tmp_path) == 0
    locks.mkdir(parents=True)
    for name in ("0.input.lock", "0.output.lock"):
        (locks / name).touch()
    assert other_runs(tmp_path) == 0
    (locks / "1.output.lock").touch()
    assert other_runs(tmp_path) == 1


def test_a_host_without_slurm_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="squeue: no such command"):
        jobs_left_behind(tmp_path)
