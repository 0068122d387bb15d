"""Seeding torch: its own numbers, without what it remembers of every call."""

import torch

from gen4det.core.seeding import seed_torch


def test_numbers_are_those_of_torchs_own_function():
    for seed in (0, 5, 2**63 - 1):
        torch.manual_seed(seed)
        expected = torch.rand(3), torch.randperm(9)
        seed_torch(seed)
        torch.testing.assert_close((torch.rand(3), torch.randperm(9)), expected, rtol=0, atol=0)


def test_nothing_is_remembered_for_devices_that_are_not_in_use():
    queues = [torch.cuda._queued_calls, torch.xpu._queued_calls, torch.mtia._queued_calls]
    before = [len(queue) for queue in queues]
    seed_torch(1)
    assert [len(queue) for queue in queues] == before


def test_gpus_in_use_are_seeded(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    seed_torch(7)
    assert seeded == [7]
