"""The loop of all trainings: what it computes, and that nothing which happens to it changes that."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.training.loop import rate_at, train
from gen4det.training.stop import Deadline, Stopped
from patience import patience

STEPS, RATE = 12, 0.05


def new_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def loss_of(model: torch.nn.Module, rng: np.random.Generator) -> torch.Tensor:
    """Fit the sum of three numbers, with noise of both generators."""
    x = torch.from_numpy(rng.normal(size=(8, 3))).float()
    return (model(x) - x.sum(1, keepdim=True) + 0.1 * torch.randn(8, 1)).square().mean()


def fit(folder: Path, *, signals: tuple[int, str] | None = None, **options) -> dict[str, torch.Tensor]:
    """Train the model; `signals` sends itself one at a step."""
    model = new_model()

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        if signals and step == signals[0]:
            os.kill(os.getpid(), getattr(signal, signals[1]))
        return loss_of(model, rng)

    options = {"parts": 2, "ema_decay": 0.9, "fingerprint": {"settings": 1}, **options}
    train([model], step_loss, steps=STEPS, learning_rate=RATE, warmup=3, work=folder, seed=5, **options)
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, torch.Tensor]:
    return fit(tmp_path_factory.mktemp("whole"))


def test_the_loop_is_adamw_on_the_mean_of_the_parts_with_diffusers_average(undisturbed):
    model = new_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    average = EMAModel(model.parameters(), decay=0.9)
    for step in range(STEPS):
        losses = []
        for part in range(2):
            torch.manual_seed(seed_for(5, "step", step, part))
            losses.append(loss_of(model, np.random.default_rng([5, step, part])))
        optimiser.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 3) * (STEPS - step) / STEPS
        optimiser.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.step(model.parameters())
    average.copy_to(model.parameters())
    for name, value in model.state_dict().items():
        assert torch.allclose(undisturbed[name], value, atol=1e-6), name
    assert not same(undisturbed, new_model().state_dict())


def test_rates_rise_stay_and_fall():
    rates = [rate_at(step, 90, 10, 2 / 3) for step in range(90)]
    assert (
        rates[0] == 0.1
        and rates[9] == 1
        and rates[60] == pytest.approx(1)
        and rates[75] == pytest.approx(0.5)
    )
    assert rates[89] == pytest.approx(1 / 30) and min(rates[10:60]) == 1
    assert [rate_at(step, 4, 0, 1.0) for step in range(4)] == [1, 1, 1, 1]
    assert [rate_at(step, 4, 0, 0.0) for step in range(4)] == [1, 0.75, 0.5, 0.25]


def test_a_stopped_training_ends_with_the_bytes_of_an_undisturbed_one(undisturbed, tmp_path):
    with pytest.raises(Stopped) as left, Deadline() as deadline:
        fit(tmp_path, signals=(7, "SIGTERM"), stop=deadline)
    assert left.value.code == 143
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 8
    assert same(fit(tmp_path), undisturbed)
    assert same(fit(tmp_path), undisturbed)  # finished: nothing is trained again
    rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert rows[0] == "iteration,loss,cpu_seconds" and len(rows) == 1 + STEPS


def test_a_used_up_budget_leaves_with_75(tmp_path):
    with pytest.raises(Stopped) as left, Deadline(0.0) as deadline:
        fit(tmp_path, stop=deadline)
    assert left.value.code == 75
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 1


def test_another_training_and_parts_that_cannot_be_shared_are_refused(tmp_path, monkeypatch):
    fit(tmp_path)
    with pytest.raises(InputError, match="begun with other settings"):
        fit(tmp_path, fingerprint={"settings": 2})
    monkeypatch.setattr("gen4det.training.processes.join", lambda device: (0, 3))
    with pytest.raises(InputError, match="2 parts of a batch cannot be shared by 3 processes"):
        fit(tmp_path / "three")


def test_losses_by_name_are_added_and_divergence_is_one_line(tmp_path):
    weight = torch.nn.Linear(1, 1)

    def losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        value = weight(torch.ones(1, 1)).square().mean()
        return {"loss_a": value, "loss_b": 3 * value + (float("inf") if step == 15 else 0)}

    options = {"learning_rate": 1e-3, "work": tmp_path, "fingerprint": {}}
    facts = train([weight], losses, steps=10, **options)["losses"]
    assert facts["loss"] == pytest.approx(4 * facts["loss_a"], abs=1e-4)
    with pytest.raises(InputError, match="diverged: the loss is not finite in iteration 16"):
        train([weight], losses, steps=20, **options)


def test_half_precision_computes_under_autocast_and_learns_in_float32(tmp_path):
    program = f"""
import torch, numpy as np
from gen4det.training.loop import train
layer, seen = torch.nn.Linear(4, 4), []
def step_loss(step, rng):
    seen.append(layer(torch.ones(2, 4)).dtype)
    return layer(torch.ones(2, 4)).float().square().mean()
options = dict(learning_rate=1e-3, work={str(tmp_path)!r}, fingerprint={{}}, precision="bfloat16")
train([layer], step_loss, steps=2, **options)
assert set(seen) == {{torch.bfloat16}} and layer.weight.dtype == torch.float32
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=patience(300))


# --- in processes of their own --------------------------------------------------------------------

SCRIPT = f"""
import sys; sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}
import ast, torch
from pathlib import Path
from test_training_loop import fit
from gen4det.training import processes
from gen4det.training.stop import Deadline
with Deadline() as deadline:
    weights = fit(Path(sys.argv[1]), signals=ast.literal_eval(sys.argv[2]), stop=deadline)
if processes.is_first():
    torch.save(weights, sys.argv[1] + "/weights.pt")
"""


def run(folder: Path, signals: tuple[int, str] | None = None, processes: int = 1) -> int:
    """Train in processes of their own; the exit status."""
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-W", "ignore", *(launcher if processes > 1 else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [str(folder / "script.py"), str(folder), repr(signals)]
    return subprocess.run([*command, *arguments], env=environment, timeout=patience(300)).returncode


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


def test_kill_9_and_resume_gives_the_bytes_of_an_undisturbed_training(undisturbed, tmp_path):
    with pytest.raises(Stopped), Deadline() as deadline:
        fit(tmp_path, signals=(3, "SIGTERM"), stop=deadline)
    assert run(tmp_path, (9, "SIGKILL")) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert same(weights(tmp_path), undisturbed)


def test_two_processes_train_to_what_one_trains_stopped_and_resumed_to_the_same_bytes(undisturbed, tmp_path):
    assert run(tmp_path / "pair", processes=2) == 0
    pair = weights(tmp_path / "pair")
    for name, value in undisturbed.items():
        assert torch.allclose(pair[name], value, atol=1e-5), name
    assert run(tmp_path / "cut", (7, "SIGTERM"), processes=2) != 0
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["iteration"] == 8
    assert run(tmp_path / "cut", processes=2) == 0
    assert same(weights(tmp_path / "cut"), pair)


def test_parameters_may_have_parts_of_learning_rate_and_weight_decay(tmp_path):
    """Against AdamW's own groups, with the cosine in place of the line."""

    def part(name: str, parameter: torch.nn.Parameter) -> tuple[float, float]:
        return (0.1, 0.0) if name.startswith("0.0.") else (1.0, float(parameter.ndim > 1))

    learned = fit(tmp_path, share=part, weight_decay=0.5, falling="cosine", ema_decay=None, parts=1)
    model = new_model()
    groups = [
        {"params": [*model[0].parameters()], "share": 0.1, "weight_decay": 0.0},
        {"params": [model[2].weight], "share": 1.0, "weight_decay": 0.5},
        {"params": [model[2].bias], "share": 1.0, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    for step in range(STEPS):
        rising = min(1, (step + 1) / 3)
        rate = RATE * rising * (1 + np.cos(np.pi * step / STEPS)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        torch.manual_seed(seed_for(5, "step", step, 0))
        optimiser.zero_grad()
        loss_of(model, np.random.default_rng([5, step, 0])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(learned[name], value)


def test_an_average_without_warmup_decays_from_the_start(tmp_path):
    """Of the weights at the start decay ** steps is left, as if it had been averaged for long."""
    model = new_model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"steps": 3, "learning_rate": 0.0, "fingerprint": {"a": 1}, "ema_decay": 0.9}

    def moved(step: int, rng: np.random.Generator) -> torch.Tensor:
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(1.0)
        return loss_of(model, rng)

    train([model], moved, work=tmp_path / "w", ema_warmup=False, **options)
    expected = 0.1 * (1 * 0.81 + 2 * 0.9 + 3)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, start[name] + expected, atol=1e-5, rtol=1e-5)


def test_a_schedule_of_ones_own_and_the_number_of_the_part(tmp_path):
    model, parts, rates = new_model(), [], []

    def step_loss(step: int, rng: np.random.Generator, part: int) -> torch.Tensor:
        parts.append((step, part))
        return loss_of(model, rng)

    before = model[0].weight.detach().clone()
    options = {"steps": 2, "learning_rate": 0.1, "fingerprint": {"a": 1}, "parts": 2}
    train([model], step_loss, work=tmp_path / "w", schedule=lambda step: rates.append(step) or 0.0, **options)
    assert parts == [(0, 0), (0, 1), (1, 0), (1, 1)] and rates == [0, 1]
    assert torch.equal(model[0].weight, before)
