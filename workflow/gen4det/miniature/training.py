"""The training loop shared by the foundation models: resumable, averaged, logged."""

import csv
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, content_hash

CHECKPOINT_EVERY = 250


def train(
    modules: list[torch.nn.Module],
    step_loss: Callable[[int, np.random.Generator], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    work: Path,
    fingerprint: dict,
    ema_decay: float = 0.998,
    warmup: int = 100,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> None:
    """Optimise modules with AdamW; on return they hold the averaged (EMA) weights.

    All randomness of a step comes from (seed, step), so a killed run that starts again continues to
    the same weights.

    Args:
        modules: what to optimise; parameters that require no gradient stay as they are.
        step_loss: maps (step, generator) to a scalar loss; the global torch seed is set per step too.
        steps: optimiser steps; the learning rate warms up linearly and then falls linearly to zero.
        work: folder of the checkpoint and of `loss.csv` (step, loss, learning rate).
        fingerprint: settings a checkpoint must share.

    Raises:
        InputError: the checkpoint in `work` was made with other settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    average = [p.detach().clone() for p in trained]
    buffers = [b for module in modules for b in module.buffers()]  # running statistics of normalisation
    checkpoint, identity = work / "checkpoint.pt", content_hash(fingerprint)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=trained[0].device)
        if state["fingerprint"] != identity:
            raise InputError(f"{checkpoint}: made with other settings; move the folder away to start anew")
        for name, targets in (("trained", trained), ("average", average), ("buffers", buffers)):
            for target, source in zip(targets, state[name], strict=True):
                target.data.copy_(source)
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]

    def save(step: int) -> None:
        with atomic_write(checkpoint) as temporary:
            torch.save(
                {
                    "fingerprint": identity, "step": step, "trained": [p.data for p in trained],
                    "average": average, "buffers": buffers, "optimiser": optimiser.state_dict(),
                },
                temporary,
            )  # fmt: skip

    smooth = None
    with open(work / "loss.csv", "a", newline="") as log, _stop_flag() as stop:
        writer = csv.writer(log)
        bar = tqdm(range(start, steps), initial=start, total=steps, desc=work.parent.name, mininterval=5)
        for step in bar:
            rate = learning_rate * min((step + 1) / warmup, (steps - step) / steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(seed * 1_000_003 + step)
            loss = step_loss(step, np.random.default_rng((seed, step)))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            decay = min(ema_decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [p.data for p in trained], 1 - decay)
            value = loss.item()
            smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
            if step % 10 == 0:
                writer.writerow((step, f"{value:.5f}", f"{rate:.3e}"))
                bar.set_postfix(loss=f"{smooth:.4f}")
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps or stop.requested:
                save(step + 1)
                log.flush()
            if stop.requested:
                raise SystemExit(143)
    for target, source in zip(trained, average, strict=True):
        target.data.copy_(source)


class _Stop:
    requested = False


@contextmanager
def _stop_flag():
    """Turn SIGTERM into a flag that is looked at after each step."""
    stop = _Stop()

    def request(signum, frame):
        stop.requested = True

    previous = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)


def loss_curve(work: Path, output: Path, title: str) -> None:
    """Draw `loss.csv` of a training run as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = np.genfromtxt(work / "loss.csv", delimiter=",")
    rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
    width = max(1, len(rows) // 100)
    smooth = np.convolve(rows[:, 1], np.ones(width) / width, "valid")
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.plot(rows[:, 0], rows[:, 1], color="0.8", linewidth=0.7)
    axes.plot(rows[width - 1 :, 0], smooth, color="#0072B2")
    axes.set(xlabel="step", ylabel="loss", title=title, yscale="log")
    figure.savefig(output, dpi=110, metadata={"Software": None})
    plt.close(figure)
